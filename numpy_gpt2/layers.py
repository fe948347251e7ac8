"""The mathematics of GPT-2: one plain function for each layer.

Arrays carry their batch first: `x` is `[n_batch, n_seq, n_embd]`, one vector of n_embd numbers for
each token of each text in the batch. Inside attention every head sees its own slice of the width,
`[n_batch, n_head, n_seq, d_head]` with `d_head = n_embd / n_head`.

"Paper" below is Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; "code"
is OpenAI's `src/model.py`, whose function names are given.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from .params import MLP, Array, Attention, Block, LayerNorm, Linear


class LayerPast(Protocol):
    """What one layer remembers of the positions read before. `model.py` has the real thing."""

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Adds the keys and values of new positions; returns those of all positions so far."""


def softmax(x: Array) -> Array:
    """Turns scores into probabilities along the last axis: positive, and summing to 1.

    softmax(x)_i = exp(x_i) / sum_j exp(x_j)

    Subtracting the largest score first changes nothing in the quotient, and keeps exp from
    overflowing.

    Shapes: `[..., n]` to `[..., n]`.
    Source: Vaswani et al. 2017, section 3.2.1; code `softmax`.

    >>> softmax(np.log([1.0, 2.0, 5.0])).round(3)
    array([0.125, 0.25 , 0.625])
    """
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def gelu(x: Array) -> Array:
    """Gaussian error linear unit: lets large numbers through and holds small ones back, smoothly.

    gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

    This is the tanh approximation of x P(X <= x), X normally distributed, that GPT-2 was trained
    with. (`x * x * x` because NumPy computes `x**3` with logarithms, many times slower.)

    Shapes: any, elementwise.
    Source: Hendrycks and Gimpel 2016, section 2; code `gelu`.

    >>> gelu(np.array([-10.0, -1.0, 0.0, 1.0, 10.0])).round(4)
    array([-0.    , -0.1588,  0.    ,  0.8412, 10.    ])
    """
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def layer_norm(x: Array, params: LayerNorm) -> Array:
    """Brings each vector to mean 0 and variance 1, then scales and shifts it by learned amounts.

    layer_norm(x) = g (x - mean(x)) / sqrt(var(x) + 1e-5) + b

    Mean and variance are over the vector's own numbers: no other position, no other text.

    Shapes: `[..., n_embd]` to `[..., n_embd]`.
    Source: Ba et al. 2016, section 3; paper section 2.3 (where it stands); code `norm`.

    >>> layer_norm(np.array([1.0, 3.0]), LayerNorm(g=np.array([1.0, 10.0]), b=np.array([0.0, 5.0]))).round(3)
    array([-1., 15.])
    """
    x = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(x * x, axis=-1, keepdims=True)
    return params.g * (x / np.sqrt(variance + 1e-5)) + params.b


def linear(x: Array, params: Linear) -> Array:
    """Multiplies each vector by a matrix and adds a bias.

    linear(x) = x w + b

    Shapes: `[..., n_in]` to `[..., n_out]`.
    Source: code `conv1d` (a convolution of width 1 is a linear map).

    >>> linear(np.array([1.0, 2.0]), Linear(w=np.array([[1.0, 10.0], [2.0, 20.0]]), b=np.array([0.5, 0.0])))
    array([ 5.5, 50. ])
    """
    return x @ params.w + params.b


def causal_mask(n_query: int, n_key: int) -> Array:
    """Which keys each query may see: its own position and all before it, never what comes after.

    The queries are the last n_query of the n_key positions, so query i stands at position
    n_key - n_query + i and row i has that many True plus one.

    Shapes: `[n_query, n_key]`, True where the query may look.
    Source: paper section 2.3, after Vaswani et al. 2017, section 3.2.3; code `attention_mask`.

    >>> causal_mask(2, 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    return np.tri(n_query, n_key, n_key - n_query, dtype=bool)


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Lets each position gather from the positions that it may see what matters to it.

    attention(q, k, v) = softmax(q k^T / sqrt(d_head)) v

    A query is compared with every key by a dot product. Softmax turns a query's scores into
    weights that sum to 1; the result is the average of the values with these weights. A masked
    score is minus infinity, and so its weight is 0.

    Shapes: q `[..., n_query, d_head]`, k and v `[..., n_key, d_head]`, mask `[n_query, n_key]`
    to `[..., n_query, d_head]`.
    Source: Vaswani et al. 2017, section 3.2.1; code `multihead_attn`, `mask_attn_weights`.

    Two positions with nothing to tell their keys apart: the first sees only itself, the second
    takes the mean of both values.

    >>> attention(np.ones((2, 1)), np.ones((2, 1)), np.array([[1.0], [3.0]]), causal_mask(2, 2))
    array([[1.],
           [2.]])
    """
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])  # [..., n_query, n_key]
    weights = softmax(np.where(mask, scores, -math.inf))  # [..., n_query, n_key]
    return weights @ v  # [..., n_query, d_head]


def split_heads(x: Array, n_head: int) -> Array:
    """Cuts each vector into n_head equal parts, one for each head.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_head, n_seq, d_head]`.
    Source: code `split_heads`.
    """
    n_batch, n_seq, n_embd = x.shape
    return np.swapaxes(x.reshape(n_batch, n_seq, n_head, n_embd // n_head), 1, 2)


def merge_heads(x: Array) -> Array:
    """Puts the parts of each vector back together: the inverse of `split_heads`.

    Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_seq, n_embd]`.
    Source: code `merge_heads`.
    """
    n_batch, n_head, n_seq, d_head = x.shape
    return np.swapaxes(x, 1, 2).reshape(n_batch, n_seq, n_head * d_head)


def multi_head_attention(x: Array, params: Attention, n_head: int, past: LayerPast | None = None) -> Array:
    """Runs n_head attentions side by side, each on its own d_head numbers, and mixes the results.

    multi_head_attention(x) = c_proj(concat(head_1, ..., head_n_head))
    head_i = attention(q_i, k_i, v_i), where q, k, v = c_attn(x) and q_i is the i-th part of q

    With a past, x holds only new positions; the keys and values of those before come from there.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Vaswani et al. 2017, section 3.2.2; code `attn`.
    """
    q, k, v = np.split(linear(x, params.c_attn), 3, axis=-1)  # each [n_batch, n_seq, n_embd]
    q, k, v = split_heads(q, n_head), split_heads(k, n_head), split_heads(v, n_head)  # [n_batch, n_head, n_seq, d_head]
    if past is not None:
        k, v = past.append(k, v)  # [n_batch, n_head, n_key, d_head]: all positions so far
    mask = causal_mask(n_query=q.shape[-2], n_key=k.shape[-2])
    a = attention(q, k, v, mask)  # [n_batch, n_head, n_seq, d_head]
    return linear(merge_heads(a), params.c_proj)  # [n_batch, n_seq, n_embd]


def mlp(x: Array, params: MLP) -> Array:
    """Multi-layer perceptron: each position thinks for itself about what attention has gathered.

    mlp(x) = c_proj(gelu(c_fc(x)))

    Shapes: `[..., n_embd]` to `[..., n_embd]`, through `[..., 4 * n_embd]`.
    Source: Vaswani et al. 2017, section 3.3 (there with ReLU); code `mlp`.
    """
    h = gelu(linear(x, params.c_fc))  # [..., 4 * n_embd]
    return linear(h, params.c_proj)  # [..., n_embd]


def block(x: Array, params: Block, n_head: int, past: LayerPast | None = None) -> Array:
    """One transformer block: positions exchange information, then each works on its own.

    x = x + multi_head_attention(ln_1(x))
    x = x + mlp(ln_2(x))

    Both parts read the normalised x and add to the plain one, which runs through the whole model
    like a bus that every block reads from and writes to: the residual stream.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: paper section 2.3 (layer norm at the input of each part); code `block`.
    """
    x = x + multi_head_attention(layer_norm(x, params.ln_1), params.attn, n_head, past)
    x = x + mlp(layer_norm(x, params.ln_2), params.mlp)
    return x
