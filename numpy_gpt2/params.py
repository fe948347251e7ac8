"""The whole model as plain data: five numbers, and a tree of named arrays.

Every name is the one that the variable has in OpenAI's checkpoints, so `params.h[0].attn.c_attn.w`
is the checkpoint's `model/h0/attn/c_attn/w`. Who has read `build` has seen every parameter of GPT-2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class HParams(NamedTuple):
    """The five hyper-parameters, as in a checkpoint's `hparams.json` (in brackets: the 124M model)."""

    n_vocab: int  # tokens in the vocabulary (50257)
    n_ctx: int  # positions in the context: the longest text that the model can see (1024)
    n_embd: int  # width: the length of the vector that stands for a token inside the model (768)
    n_head: int  # attention heads in a block, each n_embd / n_head = d_head wide (12)
    n_layer: int  # blocks, one on top of the other (12)


class LayerNorm(NamedTuple):
    """The parameters of one layer normalisation."""

    g: Array  # gain, [n_embd]
    b: Array  # bias, [n_embd]


class Linear(NamedTuple):
    """The parameters of one linear map `x @ w + b`."""

    w: Array  # weight, [n_in, n_out]
    b: Array  # bias, [n_out]


class Attention(NamedTuple):
    """The parameters of one block's multi-head attention."""

    c_attn: Linear  # n_embd -> 3 * n_embd: queries, keys and values of all heads, side by side
    c_proj: Linear  # n_embd -> n_embd: mixes what the heads found


class MLP(NamedTuple):
    """The parameters of one block's multi-layer perceptron."""

    c_fc: Linear  # n_embd -> 4 * n_embd
    c_proj: Linear  # 4 * n_embd -> n_embd


class Block(NamedTuple):
    """The parameters of one transformer block."""

    ln_1: LayerNorm
    attn: Attention
    ln_2: LayerNorm
    mlp: MLP


class Params(NamedTuple):
    """All parameters of the model."""

    wte: Array  # token embeddings, [n_vocab, n_embd]; transposed, they are the output head as well
    wpe: Array  # position embeddings, [n_ctx, n_embd]
    h: tuple[Block, ...]  # n_layer blocks
    ln_f: LayerNorm  # the last layer normalisation


def build(hparams: HParams, make: Callable[[str, tuple[int, ...]], Array]) -> Params:
    """Builds the parameter tree, asking `make(name, shape)` for each array in turn.

    The one place that knows every name and shape: reading a checkpoint, drawing random parameters
    and checking shapes differ only in `make`. Names are the checkpoint's own without the leading
    `model/`, as `h0/attn/c_attn/w`.
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


def named_arrays(params: Params) -> Iterator[tuple[str, Array]]:
    """The arrays of a parameter tree with their names, in the order in which `build` makes them.

    >>> tiny = init_params(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=1))
    >>> [(name, array.shape) for name, array in named_arrays(tiny)][:4]
    [('wte', (5, 2)), ('wpe', (4, 2)), ('h0/ln_1/g', (2,)), ('h0/ln_1/b', (2,))]
    """

    def walk(prefix: str, node: Any) -> Iterator[tuple[str, Array]]:
        for field, child in zip(node._fields, node, strict=True):
            if field == "h":
                for i, block in enumerate(child):
                    yield from walk(f"{prefix}h{i}/", block)
            elif isinstance(child, tuple):
                yield from walk(f"{prefix}{field}/", child)
            else:
                yield prefix + field, child

    return walk("", params)


def count(params: Params) -> int:
    """How many numbers the parameters are: 124,439,808 for the 124M model."""
    return sum(array.size for _, array in named_arrays(params))


def init_params(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> Params:
    """Random parameters for training or for experiments; the same for the same `seed`.

    Weights are drawn from a normal distribution with standard deviation 0.02 (the position
    embeddings 0.01), biases are 0 and gains 1. The maps that add to the residual stream, both named
    `c_proj`, are scaled by 1/sqrt(N), where N = 2 * n_layer is how many of them add up on the way
    through the model.

    Source: GPT-2 paper (Radford et al. 2019), section 2.3; the initializers in `src/model.py`.

    Raises:
        ValueError: the hyper-parameters are not those of any model.
    """
    check_hparams(hparams)
    rng = np.random.default_rng(seed)

    def make(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("/g"):
            return np.ones(shape, dtype)
        if name.endswith("/b"):
            return np.zeros(shape, dtype)
        deviation = 0.01 if name == "wpe" else 0.02
        if name.endswith("c_proj/w"):
            deviation /= (2 * hparams.n_layer) ** 0.5
        return (deviation * rng.standard_normal(shape, np.float32)).astype(dtype, copy=False)

    return build(hparams, make)


def check_hparams(hparams: HParams) -> None:
    """Checks that hyper-parameters describe a model.

    Raises:
        ValueError: a value is not a positive whole number, or n_head does not divide n_embd.
    """
    for name, value in hparams._asdict().items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    if hparams.n_embd % hparams.n_head:
        raise ValueError(
            f"n_embd must be a multiple of n_head, but {hparams.n_embd} is not a multiple of {hparams.n_head}"
        )
