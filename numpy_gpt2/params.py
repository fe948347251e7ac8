"""The whole model as plain data: five numbers, and a tree of named arrays.

Names are those of OpenAI's checkpoints: the variable `model/h0/attn/c_attn/w` is
`params.h[0].attn.c_attn.w`. OpenAI does not spell them out; read `wte` as token embeddings, `wpe` as
position embeddings, `h` as the blocks, `ln` as layer norm, `fc` as fully connected and `proj` as
projection back to the width of the model.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


# In brackets: the numbers of the model with 124 million parameters.
class HParams(NamedTuple):
    """The hyper-parameters, as in `hparams.json`."""

    n_vocab: int  # tokens in the vocabulary (50257)
    n_ctx: int  # the context: the longest text that the model can read, in tokens (1024)
    n_embd: int  # the width: how many numbers stand for a token inside the model (768)
    n_head: int  # attention heads in a block (12), each d_head = n_embd / n_head numbers wide (64)
    n_layer: int  # blocks, one on top of the other (12)


class LayerNorm(NamedTuple):
    """For `layers.layer_norm`."""

    g: Array  # gain, [n_embd]
    b: Array  # bias, [n_embd]


class Linear(NamedTuple):
    """For `layers.linear`, from n_in to n_out numbers."""

    w: Array  # weight, [n_in, n_out]
    b: Array  # bias, [n_out]


class Attention(NamedTuple):
    """For `layers.multi_head_attention`."""

    c_attn: Linear  # n_embd -> 3 * n_embd: queries, keys and values of all heads, side by side
    c_proj: Linear  # n_embd -> n_embd: mixes what the heads found


class MLP(NamedTuple):
    """For `layers.mlp`."""

    c_fc: Linear  # n_embd -> 4 * n_embd
    c_proj: Linear  # 4 * n_embd -> n_embd


class Block(NamedTuple):
    """For `layers.block`."""

    ln_1: LayerNorm
    attn: Attention
    ln_2: LayerNorm
    mlp: MLP


class Params(NamedTuple):
    """For `model.logits`: the whole model."""

    wte: Array  # token embeddings, [n_vocab, n_embd]; transposed, they are the output head as well
    wpe: Array  # position embeddings, [n_ctx, n_embd]
    h: tuple[Block, ...]  # n_layer blocks
    ln_f: LayerNorm  # between the last block and the output head


def build(hparams: HParams, make: Callable[[str, tuple[int, ...]], Array]) -> Params:
    """Builds the parameter tree, asking `make(name, shape)` for one array after the other.

    Every name and shape is decided here. Reading a file and drawing random numbers both go through
    here, and differ only in `make`. A name is the checkpoint's without `model/`: `h0/attn/c_attn/w`.
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
    """The shape of every parameter under its name, in the order of `build`.

    >>> shapes(HParams(n_vocab=5, n_ctx=4, n_embd=2, n_head=1, n_layer=1))["h0/attn/c_attn/w"]
    (2, 6)
    """
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, shape: tuple[int, ...]) -> Array:
        found[name] = shape
        return np.empty(0)

    build(hparams, note)
    return found


def named_arrays(params: Params) -> Iterator[tuple[str, Array]]:
    """The arrays of a parameter tree under the names that `build` gives them.

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


def count_params(params: Params) -> int:
    """The number of parameters: 124,439,808 in the model called 124M."""
    return sum(array.size for _, array in named_arrays(params))


def number_of_params(hparams: HParams) -> int:
    """How many parameters a model of this shape has.

    >>> number_of_params(HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12))
    124439808
    """
    sizes = {name: math.prod(shape) for name, shape in shapes(hparams._replace(n_layer=1)).items()}
    of_a_block = sum(size for name, size in sizes.items() if name.startswith("h0/"))
    return sum(sizes.values()) + (hparams.n_layer - 1) * of_a_block


def init_params(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> Params:
    """Random parameters, to train or to experiment with. The same seed gives the same numbers.

    Weights are normally distributed around 0 with a standard deviation of 0.02 (position embeddings:
    0.01), biases are 0, gains 1. In each block, the outputs of two linear maps, both named `c_proj`,
    are added to the vectors that run through the model. So that the sum does not grow with the number
    of blocks, the weights of these maps are divided by sqrt(N), where N = 2 * n_layer is their number.

    Source: Radford et al. 2019, section 2.3; the initializers in OpenAI's `src/model.py`.

    Raises:
        ValueError: `check_hparams` refuses the hyper-parameters, or dtype is not float32 or float64.
    """
    check_hparams(hparams)
    dtype = float_dtype(dtype)
    rng = np.random.default_rng(seed)

    def make(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("/g"):
            return np.ones(shape, dtype)
        if name.endswith("/b"):
            return np.zeros(shape, dtype)
        deviation = 0.01 if name == "wpe" else 0.02
        if name.endswith("c_proj/w"):
            deviation /= math.sqrt(2 * hparams.n_layer)
        numbers = deviation * rng.standard_normal(shape, np.float32)  # the same ones for every dtype
        return numbers.astype(dtype, copy=False)

    return build(hparams, make)


def check_hparams(hparams: HParams) -> None:
    """Checks that a model can be built with these hyper-parameters.

    Raises:
        ValueError: one is not a positive whole number, or n_head does not divide n_embd.
    """
    for name, value in hparams._asdict().items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    if hparams.n_embd % hparams.n_head:
        raise ValueError(
            f"n_embd must be a multiple of n_head, but {hparams.n_embd} is not a multiple of {hparams.n_head}"
        )


def float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type that parameters are to have.

    Raises:
        ValueError: it is not float32 or float64.
    """
    for known in np.dtype(np.float32), np.dtype(np.float64):
        if dtype is not None and dtype in (known, known.name):  # to NumPy, None means float64
            return known
    raise ValueError(f"dtype must be float32 or float64, not {dtype!r}")
