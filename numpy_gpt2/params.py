"""The whole model as plain data: five numbers, and a tree of named arrays.

The names are those of OpenAI's checkpoints: the variable `model/h0/attn/c_attn/w` is
`params.h[0].attn.c_attn.w`. OpenAI does not spell the names out. `wte` are the token embeddings, `wpe` the
position embeddings, `h` the transformer blocks (h for hidden), `ln` a layer norm, `fc` fully connected, and
`proj` a projection back to the width of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import interactive

Array: TypeAlias = npt.NDArray[Any]


class HParams(NamedTuple):
    """The hyperparameters, as in `hparams.json`. In parentheses: the values of the 124M model."""

    n_vocab: int  # tokens in the vocabulary (50257)
    n_ctx: int  # size of the context: the most tokens that the model can see at once (1024)
    n_embd: int  # width of the model: how many numbers represent a token inside it (768)
    n_head: int  # attention heads per block (12), each d_head = n_embd / n_head wide (64)
    n_layer: int  # blocks, stacked (12)


class LayerNorm(NamedTuple):
    """Parameters of `layers.layer_norm`."""

    g: Array  # gain, [n_embd]
    b: Array  # bias, [n_embd]


class Linear(NamedTuple):
    """Parameters of `layers.linear`, a map from n_in to n_out numbers."""

    w: Array  # weight, [n_in, n_out]
    b: Array  # bias, [n_out]


class Attention(NamedTuple):
    """Parameters of `layers.multi_head_attention`."""

    c_attn: Linear  # n_embd -> 3 * n_embd: the queries, keys and values of all heads, side by side
    c_proj: Linear  # n_embd -> n_embd: mixes the results of the heads


class MLP(NamedTuple):
    """Parameters of `layers.mlp`."""

    c_fc: Linear  # n_embd -> 4 * n_embd
    c_proj: Linear  # 4 * n_embd -> n_embd


class Block(NamedTuple):
    """Parameters of `layers.block`."""

    ln_1: LayerNorm
    attn: Attention
    ln_2: LayerNorm
    mlp: MLP


class Params(NamedTuple):
    """Parameters of `model.logits`: the whole model."""

    wte: Array  # token embeddings, [n_vocab, n_embd]; transposed, also the output head
    wpe: Array  # position embeddings, [n_ctx, n_embd]
    h: tuple[Block, ...]  # n_layer blocks
    ln_f: LayerNorm  # between the last block and the output head


def build(hparams: HParams, make: Callable[[str, tuple[int, ...]], Array]) -> Params:
    """Builds the parameter tree by asking `make(name, shape)` for one array after another.

    So every name and every shape is written down once, here. `make` decides where the arrays come from:
    `init_params` draws them at random, `weights/` reads them from a file. A name is that of the checkpoint
    without `model/`, such as `h0/attn/c_attn/w`.
    """
    n_embd = hparams.n_embd

    def layer_norm(name: str) -> LayerNorm:
        return LayerNorm(g=make(f"{name}/g", (n_embd,)), b=make(f"{name}/b", (n_embd,)))

    def linear(name: str, n_in: int, n_out: int) -> Linear:
        return Linear(w=make(f"{name}/w", (n_in, n_out)), b=make(f"{name}/b", (n_out,)))

    def block(name: str) -> Block:
        return Block(
            ln_1=layer_norm(f"{name}/ln_1"),
            attn=Attention(
                c_attn=linear(f"{name}/attn/c_attn", n_embd, 3 * n_embd),
                c_proj=linear(f"{name}/attn/c_proj", n_embd, n_embd),
            ),
            ln_2=layer_norm(f"{name}/ln_2"),
            mlp=MLP(
                c_fc=linear(f"{name}/mlp/c_fc", n_embd, 4 * n_embd),
                c_proj=linear(f"{name}/mlp/c_proj", 4 * n_embd, n_embd),
            ),
        )

    return Params(
        wte=make("wte", (hparams.n_vocab, n_embd)),
        wpe=make("wpe", (hparams.n_ctx, n_embd)),
        h=tuple(block(f"h{i}") for i in range(hparams.n_layer)),
        ln_f=layer_norm("ln_f"),
    )


def shapes(hparams: HParams) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name, in the order of `build`.

    >>> shapes(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=1))["h0/attn/c_attn/w"]
    (2, 6)
    """
    shape_of: dict[str, Any] = {}
    build(hparams, shape_of.setdefault)  # takes a name and a shape, as `make` does
    return shape_of


def named_arrays(params: Params) -> Iterator[tuple[str, Array]]:
    """The arrays of a parameter tree, each with the name that `build` gives it.

    >>> small = init_params(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=1))
    >>> [(name, array.shape) for name, array in named_arrays(small)][:4]
    [('wte', (5, 2)), ('wpe', (4, 2)), ('h0/ln_1/g', (2,)), ('h0/ln_1/b', (2,))]
    """

    def walk(prefix: str, node: Any) -> Iterator[tuple[str, Array]]:
        for field, child in zip(node._fields, node, strict=True):
            if field == "h":  # the blocks: h0, h1, ...
                for i, block in enumerate(child):
                    yield from walk(f"{prefix}h{i}/", block)
            elif isinstance(child, tuple):
                yield from walk(f"{prefix}{field}/", child)
            else:
                yield prefix + field, child

    return walk("", params)


def replace(params: Params, arrays: Mapping[str, Array]) -> Params:
    """Another tree, with these arrays in place of those of the same names. The old tree stays as it is.

    Args:
        params: the old tree, whose other arrays are also in the new one, not copied.
        arrays: the new arrays by name, with the shapes and the dtype of the old ones.

    Raises:
        ValueError: there is no parameter of a name, or its array is of another kind.

    >>> small = init_params(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=1))
    >>> replace(small, {"h0/ln_1/g": np.zeros(2, np.float32)}).h[0].ln_1.g
    array([0., 0.], dtype=float32)
    """
    named = dict(named_arrays(params))
    for name, array in arrays.items():
        if name not in named:
            raise ValueError(f"there is no parameter {name!r}{interactive.did_you_mean(name, named)}")
        expected, found = interactive.describe(named[name]), interactive.describe(array)
        if found != expected:
            raise ValueError(f"{name} must be {expected}, as it is now, not {found}")
    named.update(arrays)
    (n_vocab, n_embd), n_ctx, n_layer = params.wte.shape, len(params.wpe), len(params.h)
    return build(HParams(n_vocab, n_ctx, n_embd, 1, n_layer), lambda name, shape: named[name])


def count_params(hparams: HParams) -> int:
    """The number of parameters of a model of this shape.

    >>> count_params(HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12))
    124439808
    """
    sizes = {name: math.prod(shape) for name, shape in shapes(hparams._replace(n_layer=1)).items()}
    per_block = sum(size for name, size in sizes.items() if name.startswith("h0/"))
    return sum(sizes.values()) + (hparams.n_layer - 1) * per_block


def init_params(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> Params:
    """Random parameters, to train or to experiment with. The same seed gives the same parameters.

    Weights are drawn from a normal distribution with mean 0 and standard deviation 0.02 (position
    embeddings: 0.01). Biases are 0, gains 1. Each block adds the outputs of two linear maps, both named
    `c_proj`, to the residual stream. So that the stream does not grow with the number of blocks, the weights
    of these maps are divided by sqrt(N), where N = 2 * n_layer is the number of these maps.

    Source: Radford et al. 2019, section 2.3; the initializers in OpenAI's `src/model.py`.
    """
    rng = np.random.default_rng(seed)

    def make(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("/g"):
            return np.ones(shape, dtype)
        if name.endswith("/b"):
            return np.zeros(shape, dtype)
        deviation = 0.01 if name == "wpe" else 0.02
        if name.endswith("c_proj/w"):
            deviation /= math.sqrt(2 * hparams.n_layer)
        weight = deviation * rng.standard_normal(shape, np.float32)  # in float32, so every dtype gets the same numbers
        return weight.astype(dtype, copy=False)

    return build(hparams, make)


# a short repr, a table in a notebook, and an answer to assignments
interactive.equip((LayerNorm, Linear, Attention, MLP, Block, Params), named_arrays)
