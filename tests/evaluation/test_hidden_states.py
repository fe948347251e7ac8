"""Hidden states against transformers' `output_hidden_states`."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model

from numpy_gpt2.decoding import prefill
from numpy_gpt2.params import HParams


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("with_types", [False, True])
@pytest.mark.parametrize("at_once", [None, 7])
def test_hidden_states_are_those_of_pytorch(hparams: HParams, with_types: bool, at_once: int | None) -> None:
    """Also if the texts are read in pieces."""
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
    with prefill.tokens_at_once(at_once):
        ours = gpt2.hidden_states(ids, types)
    assert len(ours) == len(theirs.hidden_states) == hparams.n_layer + 1
    for x, expected in zip(ours, theirs.hidden_states, strict=True):
        assert np.abs(x - expected.numpy()).max() <= 1e-10 * expected.abs().max()
    np.testing.assert_allclose(ours[-1] @ gpt2.params.wte.T, gpt2.logits(ids, token_type_ids=types), rtol=0, atol=1e-11)
    one = gpt2.hidden_states(ids[0], None if types is None else types[0])
    assert [x.shape for x in one] == [(hparams.n_ctx, hparams.n_embd)] * (hparams.n_layer + 1)


def test_one_state_does_not_keep_the_others_in_memory() -> None:
    gpt2 = random_model(SHAPES[1])
    for x in gpt2.hidden_states(random_ids(SHAPES[1], 1, 9)):
        base = x if x.base is None else x.base
        assert base.size == x.size
