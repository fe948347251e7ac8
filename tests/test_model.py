"""The whole model against transformers' GPT2LMHeadModel, and the past against a pass over everything."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import layers
from numpy_gpt2.model import Past, output_head, read
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
    assert past.lengths.tolist() == [7] * 5
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
    past.lengths[:] = 2
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
    assert past.lengths.tolist() == [2]
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
        (["a"], "this is text: the tokenizer's encode makes ids of it"),
        ("a", "came without a vocabulary"),
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
    assert past.lengths.tolist() == [4]
    small = Past(gpt2.params, 3, room=3)
    with pytest.raises(ValueError, match="4 tokens are too many for this past, which has room for 3"):
        gpt2.logits([1, 2, 3, 4], small)


class TestLengthsOfTheirOwn:
    """Texts of different lengths in one past, each at its own position."""

    HPARAMS = SHAPES[1]
    LENGTHS = (1, 9, 4)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_padded_texts_go_on_as_if_each_were_alone(self, dtype: str) -> None:
        gpt2 = random_model(self.HPARAMS, dtype)
        ids = random_ids(self.HPARAMS, 3, 9)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        past.lengths[:] = self.LENGTHS
        more = [random_ids(self.HPARAMS, 3, n_seq, seed=n_seq) for n_seq in (1, 1, 3, 2)]
        logits = np.concatenate([gpt2.logits(piece, past) for piece in more], axis=1)
        assert past.lengths.tolist() == [n + 7 for n in self.LENGTHS]
        for row, length in enumerate(self.LENGTHS):
            text = np.concatenate([ids[row, :length], *(piece[row] for piece in more)])
            alone = gpt2.logits(text)[length:]
            limit = LIMITS[dtype] / 10 * np.abs(alone).max()
            np.testing.assert_allclose(logits[row], alone, rtol=0, atol=limit)

    def test_padding_with_other_tokens_changes_nothing_at_all(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 9)
        padded = np.arange(9) >= np.array(self.LENGTHS)[:, None]
        logits = []
        for pad in (0, 7):
            past = gpt2.new_past(3)
            gpt2.logits(np.where(padded, pad, ids), past)
            past.lengths[:] = self.LENGTHS
            logits.append(gpt2.logits([[1], [2], [3]], past))
        np.testing.assert_array_equal(logits[0], logits[1])

    def test_a_row_is_a_view(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 5)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        row = past.row(1)
        row.lengths[:] = 2
        gpt2.logits([9, 8, 7, 6], row)
        assert past.lengths.tolist() == [5, 6, 5]
        logits = gpt2.logits([[1], [2], [3]], past)
        for i, text in enumerate([[*ids[0], 1], [*ids[1, :2], 9, 8, 7, 6, 2], [*ids[2], 3]]):
            np.testing.assert_allclose(logits[i, 0], gpt2.logits(text)[-1], rtol=0, atol=1e-11)

    def test_a_selection_is_a_copy(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 9)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        past.lengths[:] = self.LENGTHS
        chosen = past.select([2, 0, 2])
        logits = gpt2.logits([[1], [2], [3]], chosen)
        assert past.lengths.tolist() == list(self.LENGTHS)
        assert chosen.lengths.tolist() == [5, 2, 5]
        for i, text in enumerate([[*ids[2, :4], 1], [*ids[0, :1], 2], [*ids[2, :4], 3]]):
            np.testing.assert_allclose(logits[i, 0], gpt2.logits(text)[-1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("with_types", [False, True])
def test_hidden_states_are_those_of_pytorch(hparams: HParams, with_types: bool) -> None:
    torch = pytest.importorskip("torch")
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, 3, hparams.n_ctx)
    types = random_ids(hparams, 3, hparams.n_ctx, seed=1) if with_types else None
    with torch.no_grad():
        theirs = in_pytorch(gpt2).transformer(
            torch.tensor(ids),
            token_type_ids=None if types is None else torch.tensor(types),
            output_hidden_states=True,
        )
    ours = gpt2.hidden_states(ids, types)
    assert len(ours) == len(theirs.hidden_states) == hparams.n_layer + 1
    for x, expected in zip(ours, theirs.hidden_states, strict=True):
        assert np.abs(x - expected.numpy()).max() <= 1e-10 * expected.abs().max()
    np.testing.assert_allclose(ours[-1] @ gpt2.params.wte.T, gpt2.logits(ids, token_type_ids=types), rtol=0, atol=1e-11)
    one = gpt2.hidden_states(ids[0], None if types is None else types[0])
    assert [x.shape for x in one] == [(hparams.n_ctx, hparams.n_embd)] * (hparams.n_layer + 1)


def test_token_types_beside_a_past() -> None:
    gpt2 = random_model(SHAPES[1])
    ids, types = random_ids(SHAPES[1], 2, 9), random_ids(SHAPES[1], 2, 9, seed=1)
    past = gpt2.new_past(2)
    logits = [gpt2.logits(ids[:, i:j], past, types[:, i:j]) for i, j in ((0, 4), (4, 5), (5, 9))]
    whole = gpt2.logits(ids, token_type_ids=types)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), whole, rtol=0, atol=1e-11)
    assert np.abs(whole - gpt2.logits(ids)).max() > 0.1


def test_text_is_accepted_in_place_of_its_ids() -> None:
    tiny = numpy_gpt2.load("tiny")
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("The king was")
    np.testing.assert_array_equal(tiny.logits("The king was"), tiny.logits(ids))
    np.testing.assert_array_equal(tiny.hidden_states("The king was")[3], tiny.hidden_states(ids)[3])
    assert tiny.loss("The king was") == tiny.loss(ids)


def test_what_was_never_written_is_never_seen() -> None:
    gpt2 = random_model(SHAPES[1])
    past = gpt2.new_past(2)
    past.k[:] = np.nan
    gpt2.logits([[1], [2]], past)
    gpt2.logits([3, 4, 5], past.row(0))
    assert np.isfinite(gpt2.logits([[6], [7]], past)).all()


@pytest.mark.parametrize(
    ("types", "complaint"),
    [
        ([1, 2], "token_type_ids must be whole numbers in the shape .3., not int64 in the shape .2."),
        ([1, 2, 300], "token_type_ids holds 300; it must hold numbers from 0 to 299$"),
        ([1, 2, -100], "token_type_ids holds -100"),
    ],
    ids=str,
)
def test_token_types_that_do_not_fit_are_refused(types: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        random_model(SHAPES[0]).logits([1, 2, 3], token_type_ids=types)


@pytest.mark.parametrize("n", [1, 2, 63, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_output_head_for_any_number_of_vectors(n: int, dtype: str) -> None:
    hparams = HParams(n_vocab=2500, n_ctx=3, n_embd=12, n_head=1, n_layer=1)  # more than are multiplied at once
    params = random_model(hparams, dtype).params
    x = np.random.default_rng(1).normal(size=(n, 12)).astype(dtype)
    ours = output_head(x, params)
    assert ours.dtype == dtype
    limit = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(ours, np.einsum("ie,ve->iv", x, params.wte), rtol=0, atol=limit)
    np.testing.assert_array_equal(output_head(x[:, None], params)[:, 0], ours)


def test_no_array_of_all_scores_is_made_for_a_long_prompt() -> None:
    hparams = HParams(n_vocab=11, n_ctx=1000, n_embd=16, n_head=8, n_layer=1)
    model = random_model(hparams, "float32")

    ids = random_ids(hparams, 1, 1000)
    past = Past(model.params, hparams.n_head)
    all_scores = 4 * hparams.n_head * 1000 * 1000  # bytes
    for with_past in True, False:
        tracemalloc.start()
        if with_past:
            read(ids, model.params, hparams.n_head, past)
        else:
            model.logits(ids)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < all_scores / 4
