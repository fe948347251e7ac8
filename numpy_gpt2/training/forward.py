"""The forward pass for training: that of `layers.py`, with dropout, and with what the backward pass needs again.

Without dropout, `block` returns what `layers.block` returns, bit for bit.

Source of dropout: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting"; where
it stands in GPT-2: Radford et al. 2018, "Improving language understanding by generative pre-training", section 4.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np

from .. import layers
from ..params import Array, Block, Params


class Dropout(NamedTuple):
    """Sets a random share of numbers to 0, so that no part can rely on another one alone.

    dropout(x)_i = x_i m_i / (1 - rate), where m_i is 0 with the probability `rate`, otherwise 1

    The division keeps the expected value. Which numbers are dropped depends on the seed, the place and the shape alone,
    not on what was drawn before. So the backward pass, which needs the same m_i, draws them again; and the result does
    not depend on which thread computes what.

    In the backward pass, the same function is applied to d_y: d_x_i = d_y_i m_i / (1 - rate).
    """

    rate: float = 0.0  # 0 up to, but not including, 1
    seed: tuple[int, ...] = (0,)

    def within(self, n: int) -> Dropout:
        """The dropout of the n-th part, such as a block, which draws other numbers."""
        return self._replace(seed=(*self.seed, n))

    def __call__(self, x: Array, place: int = 0) -> Array:
        """Drops some of the numbers of x, of any shape; at the same place and in the same shape, the same ones."""
        if not self.rate:
            return x
        draws = np.random.default_rng((*self.seed, place)).random(x.shape, np.float32)
        return x * (draws >= self.rate) / (1 - self.rate)


NO_DROPOUT = Dropout()

# The places within a block at which numbers are dropped.
WEIGHTS, ATTENTION_OUT, MLP_OUT = range(3)


class Kept(NamedTuple):
    """What the forward pass of a block keeps for the backward pass, besides x, which the block was given.

    This is the one place that decides what is kept, and so takes memory, and what is computed again. Kept is what
    would take a product with a matrix of parameters to compute again, and the results of the heads: with x, ten numbers
    for each of the n_embd numbers of a position. Computed again are the layer norms, gelu, and the attention weights,
    of which there are n_seq for each position and head.
    """

    qkv: Array  # what c_attn returned: queries, keys and values side by side, [n_batch, n_seq, 3 * n_embd]
    merged: Array  # the results of the heads, which attn.c_proj was given, [n_batch, n_seq, n_embd]
    middle: Array  # what ln_2 was given: the residual stream between attention and MLP, [n_batch, n_seq, n_embd]
    fc: Array  # what gelu was given, [n_batch, n_seq, 4 * n_embd]


def block(x: Array, params: Block, n_head: int, drop: Dropout = NO_DROPOUT) -> tuple[Array, Kept]:
    """`layers.block` with dropout, which also returns what the backward pass needs.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    """
    qkv = layers.linear(layers.layer_norm(x, params.ln_1), params.attn.c_attn)
    merged = layers.merge_heads(attention(*split_qkv(qkv, n_head), causal_mask(x), drop))
    middle = x + drop(layers.linear(merged, params.attn.c_proj), ATTENTION_OUT)
    fc = layers.linear(layers.layer_norm(middle, params.ln_2), params.mlp.c_fc)
    y = middle + drop(layers.linear(layers.gelu(fc), params.mlp.c_proj), MLP_OUT)
    return y, Kept(qkv, merged, middle, fc)


def split_qkv(qkv: Array, n_head: int) -> tuple[Array, Array, Array]:
    """The queries, keys and values of each head.

    Shapes: `[n_batch, n_seq, 3 * n_embd]` to three times `[n_batch, n_head, n_seq, d_head]`.
    """
    heads = layers.split_heads(qkv, 3 * n_head)
    return heads[:, :n_head], heads[:, n_head : 2 * n_head], heads[:, 2 * n_head :]


def causal_mask(x: Array) -> Array:
    """The mask of a text without a past. Shapes: `[n_batch, n_seq, ...]` to `[n_seq, n_seq]`."""
    n_seq = x.shape[1]
    return layers.causal_mask(np.arange(n_seq, like=x), n_seq)


def attention_scores(q: Array, k: Array, mask: Array) -> Array:
    """The scores in `layers.attention`, from which softmax makes the weights.

    Shapes: q and k `[..., n_seq, d_head]` to `[..., n_seq, n_seq]`.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ np.swapaxes(k, -1, -2)
    np.copyto(scores, -math.inf, where=np.logical_not(mask))
    return scores


def attention(q: Array, k: Array, v: Array, mask: Array, drop: Dropout = NO_DROPOUT) -> Array:
    """`layers.attention`, with dropout of the weights."""
    if not drop.rate:
        return layers.attention(q, k, v, mask)
    return drop(layers.softmax(attention_scores(q, k, mask)), WEIGHTS) @ v


# Of each block whose derivatives are wanted: what it was given, and what it kept.
Stack: TypeAlias = list[tuple[Array, Kept | None]]


def blocks(
    x: Array, params: Params, n_head: int, drop: Dropout, sparing: bool, first_block: int
) -> tuple[Array, Stack]:
    """All blocks one after another, as in `model.transformer`.

    Args:
        x: what the first block is given, `[n_batch, n_seq, n_embd]`.
        params, n_head: the model.
        drop: the dropout; block i draws its own numbers, by `drop.within(i + 1)`.
        sparing: whether a block keeps nothing but what it was given.
        first_block: the first block that keeps anything.

    Returns:
        What the last block returned, `[n_batch, n_seq, n_embd]`, and the stack for the backward pass.
    """
    stack: Stack = []
    for i, part in enumerate(params.h):
        y, kept = block(x, part, n_head, drop.within(i + 1))
        if i >= first_block:
            stack.append((x, None if sparing else kept))
        x = y
    return x, stack
