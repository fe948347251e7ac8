"""Each layer against its counterpart in PyTorch or transformers, in both precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_model

from numpy_gpt2 import layers
from numpy_gpt2.params import Array, HParams, LayerNorm, Linear

torch = pytest.importorskip("torch")
functional = torch.nn.functional

HPARAMS = HParams(n_vocab=20, n_ctx=12, n_embd=24, n_head=3, n_layer=2)


def random(dtype: str, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 2, shape).astype(dtype)


def assert_same(ours: Array, theirs: Any) -> None:
    """Equal up to rounding, and of the same dtype: float32 stays float32."""
    theirs = theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    tolerance = {"float32": 2e-6, "float64": 1e-14}[str(ours.dtype)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()) * 4)


@pytest.mark.parametrize("dtype", DTYPES)
class TestAgainstPyTorch:
    def test_softmax(self, dtype: str) -> None:
        x = random(dtype, 2, 3, 5)
        assert_same(layers.softmax(x), torch.softmax(torch.tensor(x), dim=-1))

    def test_log_softmax(self, dtype: str) -> None:
        x = random(dtype, 2, 3, 5)
        assert_same(layers.log_softmax(x), torch.log_softmax(torch.tensor(x), dim=-1))

    def test_softmax_of_whole_numbers(self, dtype: str) -> None:
        assert_same(layers.softmax(np.array([1, 2, 3])), torch.softmax(torch.tensor([1.0, 2, 3]).double(), dim=-1))

    def test_softmax_of_large_scores(self, dtype: str) -> None:
        x = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4]], dtype)
        assert_same(layers.softmax(x), torch.softmax(torch.tensor(x), dim=-1))
        assert_same(layers.log_softmax(x), torch.log_softmax(torch.tensor(x), dim=-1))

    def test_gelu(self, dtype: str) -> None:
        x = np.concatenate([random(dtype, 1000), np.linspace(-50, 50, 1001).astype(dtype)])
        assert_same(layers.gelu(x), functional.gelu(torch.tensor(x), approximate="tanh"))

    def test_layer_norm(self, dtype: str) -> None:
        x, g, b = random(dtype, 2, 5, 24), random(dtype, 24, seed=1), random(dtype, 24, seed=2)
        theirs = functional.layer_norm(torch.tensor(x), [24], torch.tensor(g), torch.tensor(b), eps=1e-5)
        assert_same(layers.layer_norm(x, LayerNorm(g, b)), theirs)

    def test_layer_norm_of_nearly_equal_numbers(self, dtype: str) -> None:
        """The variance is as small as the 1e-5 that is added to it."""
        x = (random(dtype, 2, 5, 24) * 1e-3).astype(dtype)
        ones, zeros = np.ones(24, dtype), np.zeros(24, dtype)
        assert_same(
            layers.layer_norm(x, LayerNorm(ones, zeros)), functional.layer_norm(torch.tensor(x), [24], eps=1e-5)
        )

    @pytest.mark.parametrize(
        "shape", [(7,), (1, 7), (1, 1, 7), (5, 1, 7), (6, 1, 7), (1, 5, 7), (2, 5, 7), (2, 3, 4, 7)]
    )
    def test_linear(self, dtype: str, shape: tuple[int, ...]) -> None:
        x, w, b = random(dtype, *shape), random(dtype, 7, 9, seed=1), random(dtype, 9, seed=2)
        assert_same(
            layers.linear(x, Linear(w, b)), functional.linear(torch.tensor(x), torch.tensor(w).T, torch.tensor(b))
        )

    def test_attention(self, dtype: str) -> None:
        q, k, v = (random(dtype, 2, 3, 5, 8, seed=seed) for seed in range(3))
        theirs = functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), is_causal=True)
        assert_same(layers.attention(q, k, v, layers.causal_mask(np.arange(5), 5)), theirs)

    def test_attention_with_large_scores(self, dtype: str) -> None:
        """A masked key has the weight 0 even if its score is far above all others."""
        q, k, v = (random(dtype, 2, 3, 5, 8, seed=seed) for seed in range(3))
        q, k = (np.abs(q) * 100).astype(dtype), (-np.abs(k) * np.arange(500, 0, -100)[:, None]).astype(dtype)
        theirs = functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), is_causal=True)
        assert_same(layers.attention(q, k, v, layers.causal_mask(np.arange(5), 5)), theirs)

    def test_attention_of_the_last_positions_only(self, dtype: str) -> None:
        q, k, v = random(dtype, 2, 3, 2, 8), random(dtype, 2, 3, 5, 8, seed=1), random(dtype, 2, 3, 5, 8, seed=2)
        mask = torch.ones(5, 5, dtype=torch.bool).tril()[-2:]
        theirs = functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), attn_mask=mask)
        assert_same(layers.attention(q, k, v, layers.causal_mask(np.array([3, 4]), 5)), theirs)

    @pytest.mark.parametrize(("n_query", "n_key"), [(1, 1), (1, 9), (3, 3), (4, 4), (8, 11), (11, 11)])
    def test_attention_of_texts_of_different_lengths(self, dtype: str, n_query: int, n_key: int) -> None:
        q, k, v = (random(dtype, 2, 4, n, 6, seed=i) for i, n in enumerate([n_query, n_key, n_key]))
        positions = np.arange(n_key - n_query, n_key) - np.array([[0], [2]])  # the second text is shorter
        positions = positions.clip(0)
        mask = layers.causal_mask(positions, n_key)[:, None]
        theirs = functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), attn_mask=torch.tensor(mask))
        assert_same(layers.attention(q, k, v, mask), theirs)

    def test_multi_head_attention(self, dtype: str) -> None:
        model = random_model(HPARAMS, dtype)
        x = random(dtype, 2, 7, 24)
        theirs, _ = in_pytorch(model).transformer.h[0].attn(torch.tensor(x), attention_mask=hugging_face_mask(7, dtype))
        assert_same(layers.multi_head_attention(x, model.params.h[0].attn, n_head=3), theirs)

    def test_mlp(self, dtype: str) -> None:
        model = random_model(HPARAMS, dtype)
        x = random(dtype, 2, 7, 24)
        assert_same(layers.mlp(x, model.params.h[0].mlp), in_pytorch(model).transformer.h[0].mlp(torch.tensor(x)))

    def test_block(self, dtype: str) -> None:
        model = random_model(HPARAMS, dtype)
        x = random(dtype, 2, 7, 24)
        theirs = in_pytorch(model).transformer.h[1](torch.tensor(x), attention_mask=hugging_face_mask(7, dtype))
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        assert_same(layers.block(x, model.params.h[1], n_head=3), theirs)


def test_arguments_are_not_changed() -> None:
    model = random_model(SHAPES[0])
    x, scores, q = random("float64", 2, 7, 48), random("float64", 2, 3, 7, 7, seed=1), random("float64", 2, 3, 7, 16)
    before = [x.copy(), scores.copy(), q.copy()]
    layers.softmax(scores)
    layers.log_softmax(scores)
    layers.gelu(x)
    layers.attention(q, q, q, layers.causal_mask(np.arange(7), 7))
    layers.block(x, model.params.h[0], 3)
    for array, copied in zip([x, scores, q], before, strict=True):
        np.testing.assert_array_equal(array, copied)


def hugging_face_mask(n: int, dtype: str) -> Any:
    """What GPT2Model's blocks add to the scores: 0 where a query may look, otherwise the lowest number."""
    dtype = getattr(torch, dtype)
    return torch.full((n, n), torch.finfo(dtype).min, dtype=dtype).triu(1)[None, None]


@pytest.mark.parametrize(("n_query", "n_key"), [(1, 1), (1, 6), (6, 6), (2, 6)])
def test_causal_mask(n_query: int, n_key: int) -> None:
    theirs = torch.ones(n_key, n_key, dtype=torch.bool).tril()[n_key - n_query :]
    np.testing.assert_array_equal(layers.causal_mask(np.arange(n_key)[n_key - n_query :], n_key), theirs.numpy())


def test_heads_split_as_in_pytorch_and_merge_back() -> None:
    x = random("float64", 2, 5, 24)
    heads = layers.split_heads(x, 3)
    np.testing.assert_array_equal(heads, torch.tensor(x).view(2, 5, 3, 8).permute(0, 2, 1, 3).numpy())
    np.testing.assert_array_equal(layers.merge_heads(heads), x)
