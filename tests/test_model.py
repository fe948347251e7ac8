"""The whole model against transformers' GPT2LMHeadModel."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model

from numpy_gpt2 import model
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
        for ours in (gpt2.logits(ids), model.logits(ids, gpt2.params, hparams.n_head)):
            assert ours.shape == (n_batch, n_seq, hparams.n_vocab)
            assert ours.dtype == dtype
            assert np.abs(ours - theirs).max() <= LIMITS[dtype] * np.abs(theirs).max()


def test_no_position_sees_what_follows_it() -> None:
    hparams = SHAPES[1]
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, 1, 20)
    changed = ids.copy()
    changed[0, 12] = (ids[0, 12] + 1) % hparams.n_vocab
    difference = np.abs(gpt2.logits(changed) - gpt2.logits(ids)).max(axis=-1)[0]
    assert (difference[:12] == 0).all()
    assert (difference[12:] > 0).all()


def test_texts_of_a_batch_do_not_see_each_other() -> None:
    hparams = SHAPES[1]
    gpt2 = random_model(hparams)
    ids = random_ids(hparams, 4, 9)
    alone = np.concatenate([gpt2.logits(row[None]) for row in ids])
    np.testing.assert_allclose(gpt2.logits(ids), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 63, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_output_head_of_any_number_of_vectors(n: int, dtype: str) -> None:
    hparams = HParams(n_vocab=2500, n_ctx=3, n_embd=12, n_head=1, n_layer=1)  # more than are multiplied at once
    params = random_model(hparams, dtype).params
    x = np.random.default_rng(1).normal(size=(n, 12)).astype(dtype)
    ours = model.output_head(x, params)
    assert ours.dtype == dtype
    limit = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(ours, np.einsum("ie,ve->iv", x, params.wte), rtol=0, atol=limit)
    np.testing.assert_array_equal(model.output_head(x[:, None], params)[:, 0], ours)
