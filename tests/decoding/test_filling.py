"""Pieces of a prompt of which only the keys and values are needed: the same, with less to compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, random_ids, random_model

from numpy_gpt2 import layers, model
from numpy_gpt2.decoding import prefill

HPARAMS = SHAPES[1]


@pytest.fixture(autouse=True)
def pieces_of_three_tokens() -> Any:
    with prefill.tokens_at_once(3):
        yield


def test_the_last_block_ends_where_nothing_else_of_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = random_model(HPARAMS)
    n_tokens = {id(block.mlp): 0 for block in gpt2.params.h}
    original = layers.mlp

    def mlp(x: Any, params: Any) -> Any:
        n_tokens[id(params)] += x.shape[1]
        return original(x, params)

    monkeypatch.setattr(layers, "mlp", mlp)
    prefill.read_prompts([random_ids(HPARAMS, 1, 14)[0].tolist()], gpt2.params, HPARAMS.n_head, 20)
    assert [*n_tokens.values()] == [14] * (HPARAMS.n_layer - 1) + [2]  # the last piece has 14 - 4 * 3 tokens


@pytest.mark.parametrize("change", ["none", "skip", "skip first", "twice", "backwards"])
def test_vectors_keys_and_values_are_those_of_a_whole_pass(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a function of one's own in the place of `layers.block`, or a changed `model.transformer`."""
    gpt2 = random_model(HPARAMS)
    original = layers.block

    def block(x: Any, params: Any, n_head: int, past: Any) -> Any:
        if change == "skip" or (change == "skip first" and params is gpt2.params.h[0]):
            return x
        x = original(x, params, n_head, past)
        return original(x, params, n_head, past) if change == "twice" else x

    def transformer(x: Any, params: Any, n_head: int, past: Any) -> Any:
        for layer, layer_past in reversed([*zip(params.h, past.layers(x.shape[1]), strict=True)]):
            x = original(x, layer, n_head, layer_past)
        past.lengths += x.shape[1]
        return x

    if change == "backwards":
        monkeypatch.setattr(model, "transformer", transformer)
    monkeypatch.setattr(layers, "block", block)
    prompts = [random_ids(HPARAMS, 1, n, seed=n)[0].tolist() for n in (14, 7, 1)]
    past, last = prefill.read_prompts(prompts, gpt2.params, HPARAMS.n_head, 20)
    for i, prompt in enumerate(prompts):
        expected = gpt2.new_past()
        with prefill.tokens_at_once(1):  # as long as the pieces of the three
            x = prefill.read(np.array([prompt]), gpt2.params, HPARAMS.n_head, expected)
        n = len(prompt)
        np.testing.assert_allclose(last[i], x[0, -1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(past.k[:, i, :, :n], expected.k[:, 0, :, :n], rtol=0, atol=1e-12)
        np.testing.assert_allclose(past.v[:, i, :, :n], expected.v[:, 0, :, :n], rtol=0, atol=1e-12)
