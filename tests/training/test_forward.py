"""The forward pass of training: without dropout that of `layers`, bit for bit; and what dropout promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model
from in_torch import assert_near, dropout_by

from numpy_gpt2 import layers, model
from numpy_gpt2.params import Array, HParams
from numpy_gpt2.training import forward
from numpy_gpt2.training.forward import NO_DROPOUT, Dropout

torch = pytest.importorskip("torch")


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hparams", SHAPES, ids=str)
@pytest.mark.parametrize("n_batch", [1, 3])
class TestWithoutDropout:
    def test_a_block_is_that_of_layers_bit_for_bit(self, hparams: HParams, dtype: str, n_batch: int) -> None:
        params = random_model(hparams, dtype).params
        for n_seq in {1, 2, hparams.n_ctx}:
            x = random(n_batch, n_seq, hparams.n_embd).astype(dtype)
            before = x.copy()
            for block in params.h:
                y, _ = forward.block(x, block, hparams.n_head)
                assert y.dtype == x.dtype
                np.testing.assert_array_equal(y, layers.block(x, block, hparams.n_head))
            np.testing.assert_array_equal(x, before)

    def test_nothing_else_is_kept_than_what_the_parts_were_given(
        self, hparams: HParams, dtype: str, n_batch: int
    ) -> None:
        """Each part, given what was kept for it, returns the same as in the pass."""
        block, n_head = random_model(hparams, dtype).params.h[0], hparams.n_head
        x = random(n_batch, hparams.n_ctx, hparams.n_embd).astype(dtype)
        _, kept = forward.block(x, block, n_head)
        np.testing.assert_array_equal(kept.qkv, layers.linear(layers.layer_norm(x, block.ln_1), block.attn.c_attn))
        attended = layers.multi_head_attention(layers.layer_norm(x, block.ln_1), block.attn, n_head)
        np.testing.assert_array_equal(layers.linear(kept.merged, block.attn.c_proj), attended)
        np.testing.assert_array_equal(kept.middle, x + attended)
        np.testing.assert_array_equal(
            layers.linear(layers.gelu(kept.fc), block.mlp.c_proj),
            layers.mlp(layers.layer_norm(kept.middle, block.ln_2), block.mlp),
        )
        numbers_of_a_position = sum(array.size for array in kept) / (n_batch * hparams.n_ctx)
        assert numbers_of_a_position == 9 * hparams.n_embd


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize(
    "name", ["softmax", "gelu", "layer_norm", "linear", "split_heads", "merge_heads", "causal_mask"]
)
def test_a_replaced_layer_takes_effect(monkeypatch: pytest.MonkeyPatch, name: str, rate: float) -> None:
    block, x = random_model(SHAPES[1]).params.h[0], random(2, 9, 10)
    before, _ = forward.block(x, block, 5, Dropout(rate))
    original = getattr(layers, name)

    def changed(*args: Any) -> Array:
        y = original(*args)
        return np.logical_or(y, y.T) if name == "causal_mask" else y / 2

    monkeypatch.setattr(layers, name, changed)
    assert not np.allclose(forward.block(x, block, 5, Dropout(rate))[0], before)


def test_a_pass_with_dropout_is_that_of_pytorch_with_the_same_masks() -> None:
    """Where the factors belong: embeddings, attention weights, after attention, after the MLP."""
    hparams = SHAPES[1]
    gpt2, drop, ids = random_model(hparams), Dropout(0.3, (8,)), random_ids(hparams, 2, 9)
    factors = [drop.within(0)(np.ones((2, 9, 10)))]
    x = drop.within(0)(model.embed(ids, gpt2.params))
    for i, block in enumerate(gpt2.params.h):
        x, _ = forward.block(x, block, 5, drop.within(i + 1))
        factors.append(drop.within(i + 1)(np.ones((2, 5, 9, 9)), forward.WEIGHTS))
        factors.append(drop.within(i + 1)(np.ones((2, 9, 10)), forward.ATTENTION_OUT))
        factors.append(drop.within(i + 1)(np.ones((2, 9, 10)), forward.MLP_OUT))
    ours = model.output_head(layers.layer_norm(x, gpt2.params.ln_f), gpt2.params)
    with dropout_by(factors), torch.no_grad():
        theirs = in_pytorch(gpt2)(torch.tensor(ids)).logits.numpy()
    assert_near(ours, theirs, 1e-12)


class TestDropout:
    def test_without_a_rate_the_array_itself_is_returned(self) -> None:
        x = random(3, 4)
        assert Dropout()(x) is x
        assert NO_DROPOUT.within(5)(x, 2) is x

    @pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
    def test_the_rate_and_the_expected_value(self, rate: float) -> None:
        """Within five standard deviations."""
        n = 200_000
        y = Dropout(rate)(np.ones((2, n // 2)))
        deviation = math.sqrt(rate * (1 - rate) / n)
        assert abs(np.mean(y == 0) - rate) < 5 * deviation
        assert abs(np.mean(y) - 1) < 5 * deviation / (1 - rate)
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-15)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_is_not_dropped_is_divided_and_keeps_its_dtype(self, dtype: str) -> None:
        x = random(20, 30).astype(dtype)
        before = x.copy()
        y = Dropout(0.25)(x)
        assert y.dtype == x.dtype
        np.testing.assert_allclose(y[y != 0], x[y != 0] / 0.75, rtol=1e-6)
        np.testing.assert_array_equal(x, before)

    def test_the_same_in_every_precision(self) -> None:
        x = random(20, 30)
        np.testing.assert_array_equal(Dropout(0.4)(x) == 0, Dropout(0.4)(x.astype("float32")) == 0)

    def test_the_same_place_draws_the_same_whatever_was_drawn_before(self) -> None:
        x, drop = random(20, 30), Dropout(0.5, (1, 2))
        first = drop(x, 1)
        drop(x, 0)
        np.random.default_rng(0).random(5)
        np.testing.assert_array_equal(drop(x, 1), first)
        np.testing.assert_array_equal(Dropout(0.5, (1, 2))(x, 1), first)
        np.testing.assert_array_equal(drop.within(3)(x), Dropout(0.5, (1, 2, 3))(x))

    def test_every_other_place_draws_other_numbers(self) -> None:
        """Of a run: its seed, its steps, its texts, their blocks and the places in a block."""
        x = np.ones(400)
        masks = [
            Dropout(0.5, (seed, step)).within(text).within(block)(x, place) != 0
            for seed in (0, 1, 2**32)
            for step in (0, 1)
            for text in (0, 1)
            for block in (0, 1, 2)
            for place in (forward.WEIGHTS, forward.ATTENTION_OUT, forward.MLP_OUT)
        ]
        both = np.array(masks, float) @ np.array(masks, float).T
        np.fill_diagonal(both, 100)
        # two masks that know nothing of each other share 100 of 400 numbers; 50 more are almost 6 standard deviations
        assert abs(both - 100).max() < 50

    def test_in_a_block_the_expected_value_of_a_sum_is_kept(self) -> None:
        """The mean over many seeds of what attention and MLP add is near what they add without dropout."""
        block, x = random_model(SHAPES[2]).params.h[0], random(1, 6, 32)
        weights = layers.softmax(forward.attention_scores(x, x, forward.causal_mask(x)))
        dropped = [Dropout(0.2, (seed,))(weights, forward.WEIGHTS) @ x for seed in range(3000)]
        np.testing.assert_allclose(np.mean(dropped, axis=0), weights @ x, atol=0.08)
        assert not np.allclose(forward.block(x, block, 1, Dropout(0.2))[0], layers.block(x, block, 1), atol=0.5)


def test_a_block_drops_at_three_places(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x, places = random_model(SHAPES[0]).params.h[0], random(2, 7, 48), []
    original = Dropout.__call__

    def noted(self: Dropout, array: Array, place: int = 0) -> Array:
        places.append((place, array.shape))
        return original(self, array, place)

    monkeypatch.setattr(Dropout, "__call__", noted)
    forward.block(x, block, 3, Dropout(0.1))
    assert places == [(0, (2, 3, 7, 7)), (1, (2, 7, 48)), (2, (2, 7, 48))]


def test_scores_are_those_of_the_weights_in_attention() -> None:
    q, k, v = (random(2, 3, 5, 4, seed=seed) for seed in range(3))
    mask = forward.causal_mask(q[:, 0])
    weights = layers.softmax(forward.attention_scores(q, k, mask))
    np.testing.assert_array_equal(weights @ v, layers.attention(q, k, v, mask))
    theirs = torch.softmax((torch.tensor(q) @ torch.tensor(k).mT / 2).masked_fill(~torch.tensor(mask), -math.inf), -1)
    assert_near(weights, theirs.numpy(), 1e-14)
