"""The whole model against transformers' GPT2LMHeadModel, and the past against a pass over everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model

from numpy_gpt2 import layers
from numpy_gpt2.params import HParams

LIMITS = {"float32": 1e-4, "float64": 1e-10}  # of the largest logit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("n_batch", [1, 5])
def test_logits_are_those_of_pytorch(hparams: HParams, dtype: str, n_batch: int) -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(hparams, dtype)
    for n_seq in (1, hparams.n_ctx):
        ids = random_ids(hparams, n_batch, n_seq)
        with torch.no_grad():
            theirs = in_pytorch(gpt2)(torch.tensor(ids)).logits.numpy()
        ours = gpt2.logits(ids)
        assert ours.shape == (n_batch, n_seq, hparams.n_vocab)
        assert ours.dtype == dtype
        assert np.abs(ours - theirs).max() <= LIMITS[dtype] * np.abs(theirs).max()


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 1, 1, 1], [2, 5], [1, 4, 2]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reading_in_pieces_with_a_past_gives_the_same_logits(pieces: list[int], dtype: str) -> None:
    hparams = SHAPES[0]
    gpt2 = random_model(hparams, dtype)
    ids = random_ids(hparams, n_batch=5, n_seq=7)
    past = gpt2.new_past(n_batch=5)
    logits = [gpt2.logits(piece, past) for piece in np.split(ids, np.cumsum(pieces)[:-1], axis=1)]
    assert past.length == 7
    whole = gpt2.logits(ids)
    together = np.concatenate(logits, axis=1)
    assert together.dtype == dtype
    np.testing.assert_allclose(together, whole, rtol=0, atol=LIMITS[dtype] / 100 * np.abs(whole).max())


def test_no_position_sees_what_follows_it() -> None:
    hparams = SHAPES[1]
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, 1, 20)
    changed = ids.copy()
    changed[0, 12] = (ids[0, 12] + 1) % hparams.n_vocab
    difference = np.abs(gpt2.logits(changed) - gpt2.logits(ids)).max(axis=-1)[0]
    assert (difference[:12] == 0).all()
    assert (difference[12:] > 0).all()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    hparams = SHAPES[1]
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, 4, 9)
    alone = np.concatenate([gpt2.logits(row[None]) for row in ids])
    np.testing.assert_allclose(gpt2.logits(ids), alone, rtol=0, atol=1e-12)


def test_a_past_can_be_shortened() -> None:
    hparams = SHAPES[0]
    gpt2 = random_model(hparams)
    past = gpt2.new_past()
    gpt2.logits([1, 2, 3, 4], past)
    past.length = 2
    np.testing.assert_allclose(gpt2.logits([5, 6], past), gpt2.logits([1, 2, 5, 6])[2:], rtol=0, atol=1e-12)


def test_a_pass_that_is_interrupted_leaves_the_past_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = random_model(SHAPES[0])
    past = gpt2.new_past()
    gpt2.logits([1, 2], past)
    original, calls = layers.block, []

    def interrupted(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:  # in the middle of the stack
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr("numpy_gpt2.model.block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpt2.logits([3], past)
    monkeypatch.undo()
    assert past.length == 2
    np.testing.assert_allclose(gpt2.logits([4], past), gpt2.logits([1, 2, 4])[2:], rtol=0, atol=1e-12)


def test_one_row_of_ids_gives_one_row_of_logits() -> None:
    gpt2 = random_model(SHAPES[0])
    np.testing.assert_array_equal(gpt2.logits([1, 2, 3]), gpt2.logits([[1, 2, 3]])[0])
    assert gpt2.logits((4,)).shape == (1, 300)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ([], "no token ids"),
        ([[]], "no token ids"),
        ([300], "token id 300 is outside the vocabulary, which has the ids 0 to 299"),
        ([5, -1], "token id -1 is outside"),
        ([1.0], "whole numbers"),
        (["a"], "whole numbers"),
        ([True], "whole numbers"),
        ([2**70], "whole numbers"),
        (3, "whole numbers"),
        ([[[1]]], "whole numbers"),
        ([[1, 2], [3]], "same length"),
        ([0] * 8, "8 tokens are too many for this model, whose context holds 7"),
    ],
    ids=str,
)
def test_ids_that_the_model_cannot_read_are_refused(ids: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        random_model(SHAPES[0]).logits(ids)


def test_ids_that_do_not_fit_the_past_are_refused() -> None:
    gpt2 = random_model(SHAPES[0])
    past = gpt2.new_past()
    gpt2.logits([1, 2, 3, 4], past)
    with pytest.raises(ValueError, match="8 tokens .4 of them read before. are too many"):
        gpt2.logits([5, 6, 7, 8], past)
    with pytest.raises(ValueError, match="a batch of 1.* a batch of 2"):
        gpt2.logits([[5], [6]], past)
    assert past.length == 4
