"""The mathematics of GPT-2: one function per formula, from softmax to a whole block.

The first axis is the batch. `x` is `[n_batch, n_seq, n_embd]`: n_embd numbers for each of the n_seq tokens of
each text in the batch. Attention computes queries, keys and values from `x` and splits them into heads,
`[n_batch, n_head, n_seq, d_head]` with `d_head = n_embd / n_head`. The queries belong to the n_seq tokens
given. The keys may also belong to tokens read before, so n_query = n_seq and n_key >= n_seq.

A function with parameters takes its own part of them as `params`. A function with a past can be read without it
first. `like=x` makes a new array where x is: in main memory, or on a GPU (CuPy).

Sources are given by section, with the name of the same function in OpenAI's `src/model.py`:

    Vaswani et al. 2017, "Attention Is All You Need"
    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": the GPT-2 paper
    Ba et al. 2016, "Layer Normalization"
    Hendrycks and Gimpel 2016, "Gaussian Error Linear Units (GELUs)"
"""

from __future__ import annotations

import math

import numpy as np

from .cache import LayerPast
from .machine.products import product
from .params import MLP, Array, Attention, Block, LayerNorm, Linear


def softmax(x: Array) -> Array:
    """Turns scores into probabilities along the last axis: none is negative, and they sum to 1.

    softmax(x)_i = exp(x_i) / sum_j exp(x_j)

    Subtracting the largest score from all of them leaves the quotient unchanged and keeps exp from overflowing.

    Shapes: `[..., n]` to `[..., n]`.
    Source: Vaswani 3.2.1; `softmax`.

    >>> softmax(np.log([1.0, 2.0, 5.0])).round(3)
    array([0.125, 0.25 , 0.625])
    """
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    e /= np.sum(e, axis=-1, keepdims=True)  # in place: writing a new array takes longer than the division
    return e


def log_softmax(x: Array) -> Array:
    """The natural logarithms of the probabilities that softmax gives; none is above 0.

    log_softmax(x)_i = x_i - log(sum_j exp(x_j))

    The probability of a text is the product of the probabilities of its tokens, which soon becomes too small
    for a floating-point number. The sum of their logarithms does not.

    Shapes: `[..., n]` to `[..., n]`.
    Source: the logarithm of softmax.

    >>> np.exp(log_softmax(np.log([1.0, 2.0, 5.0]))).round(3)
    array([0.125, 0.25 , 0.625])
    """
    x = x - np.max(x, axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def gelu(x: Array) -> Array:
    """Gaussian error linear unit: keeps large positive numbers and brings large negative ones to 0.

    gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

    The exact function is x P(X <= x) for a standard normal X. GPT-2 was trained with this approximation.

    Shapes: any; elementwise.
    Source: Hendrycks 2; `gelu`.

    >>> gelu(np.array([-3.0, -1.0, 0.0, 1.0, 3.0])).round(4)
    array([-0.0036, -0.1588,  0.    ,  0.8412,  2.9964])
    """
    # x * x * x, since x**3 is many times slower in NumPy
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def layer_norm(x: Array, params: LayerNorm) -> Array:
    """Brings each vector to mean 0 and variance 1, then scales and shifts it by learned amounts.

    layer_norm(x) = g (x - mean(x)) / sqrt(var(x) + 1e-5) + b

    The part that follows gets numbers of similar size, however large x has grown. Mean and variance are taken
    over one vector, never over other positions or texts. The 1e-5 avoids a division by zero.

    Shapes: `[..., n_embd]` to `[..., n_embd]`.
    Source: Ba 3; `norm`.

    >>> layer_norm(np.array([1.0, 3.0]), LayerNorm(g=np.array([1.0, 10.0]), b=np.array([0.0, 5.0]))).round(3)
    array([-1., 15.])
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return params.g * (centred / np.sqrt(variance + 1e-5)) + params.b


def linear(x: Array, params: Linear) -> Array:
    """Multiplies each vector by a matrix and adds a bias.

    linear(x) = x w + b

    `product(x, w)` is `x @ w`; `machine/products.py` says why it is a function.

    Shapes: `[..., n_in]` to `[..., n_out]`.
    Source: `conv1d`, a convolution of width 1, which is the same.

    >>> linear(np.array([1.0, 2.0]), Linear(w=np.array([[1.0, 10.0], [2.0, 20.0]]), b=np.array([0.5, 0.0])))
    array([ 5.5, 50. ])
    """
    return product(x, params.w) + params.b


def causal_mask(positions: Array, n_key: int) -> Array:
    """Which keys each query may see: the key at its own position and all keys before it.

    causal_mask(positions)_ij = (j <= positions_i)

    In training, the whole text is given at once. A position that saw what follows could look up the very
    token that it has to predict. At inference, the mask makes a past possible: nothing that follows a position can
    change its key and value.

    Shapes: positions of the queries `[..., n_query]` to `[..., n_query, n_key]`, True where the query may look.
    Source: Vaswani 3.2.3; `attention_mask`.

    Queries at the last two of four positions:

    >>> causal_mask(np.array([2, 3]), 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    return np.arange(n_key, like=positions) <= positions[..., None]


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Gives each position a weighted average of the values at the positions that it may see.

    attention(q, k, v, mask) = softmax(scores) v
    scores = q k^T / sqrt(d_head), and minus infinity where mask is False

    Each position has three vectors: a query (what it looks for), a key (what it can be found by) and a value
    (what it hands over). The score of a query and a key is their dot product. Softmax turns the scores of a
    query into weights that sum to 1; a score of minus infinity becomes the weight 0. Dividing by sqrt(d_head)
    keeps the scores from growing with d_head: very large scores would put almost all the weight on one key.

    Shapes: q `[..., n_query, d_head]`, k and v `[..., n_key, d_head]`, mask `[..., n_query, n_key]` (or
    without leading axes, if it is the same for every text and head) to `[..., n_query, d_head]`.
    Source: Vaswani 3.2.1; `multihead_attn` and `mask_attn_weights`.

    Two positions with equal keys: the first sees only itself, the second takes the mean of both values.

    >>> attention(np.ones((2, 1)), np.ones((2, 1)), np.array([[1.0], [3.0]]), causal_mask(np.arange(2), 2))
    array([[1.],
           [2.]])
    """
    scores = (q / math.sqrt(q.shape[-1])) @ np.swapaxes(k, -1, -2)  # [..., n_query, n_key]
    np.copyto(scores, -math.inf, where=np.logical_not(mask))
    weights = softmax(scores)  # [..., n_query, n_key]
    return weights @ v  # [..., n_query, d_head]


def split_heads(x: Array, n_head: int) -> Array:
    """Splits each vector into n_head equal parts, and puts the axis of heads before that of positions.

    So `@`, which multiplies along the last two axes, works on each head separately.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_head, n_seq, d_head]`.
    Source: `split_heads`.

    One text of two positions, four numbers wide, for two heads:

    >>> split_heads(np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]]), 2)
    array([[[[1, 2],
             [5, 6]],
    <BLANKLINE>
            [[3, 4],
             [7, 8]]]])
    """
    n_batch, n_seq, n_embd = x.shape
    return np.swapaxes(x.reshape(n_batch, n_seq, n_head, n_embd // n_head), 1, 2)


def merge_heads(x: Array) -> Array:
    """Puts the parts of each vector back together: the inverse of `split_heads`.

    Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_seq, n_embd]`.
    Source: `merge_heads`.
    """
    n_batch, n_head, n_seq, d_head = x.shape
    return np.swapaxes(x, 1, 2).reshape(n_batch, n_seq, n_head * d_head)


def multi_head_attention(x: Array, params: Attention, n_head: int, past: LayerPast | None = None) -> Array:
    """Runs n_head attentions side by side and mixes their results.

    multi_head_attention(x) = c_proj(concat(head_0, head_1, ...))
    head_i = attention(q_i, k_i, v_i, mask), where q_i is the i-th part of q, and q, k, v = c_attn(x)

    Each head has its own queries, keys and values, d_head numbers long, so a position can look for n_head
    different things at once.

    With a past, x holds only the new positions. The past stores their keys and values, and attention sees
    both old and new ones.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Vaswani 3.2.2; `attn`.
    """
    qkv = split_heads(linear(x, params.c_attn), 3 * n_head)  # [n_batch, 3 * n_head, n_seq, d_head]: q, then k, then v
    q, k, v = qkv[:, :n_head], qkv[:, n_head : 2 * n_head], qkv[:, 2 * n_head :]  # [n_batch, n_head, n_seq, d_head]
    if past is None:
        mask = causal_mask(np.arange(x.shape[1], like=x), n_key=x.shape[1])  # [n_seq, n_seq]
    else:
        k, v = past.append(k, v)  # [n_batch, n_head, n_key, d_head]
        mask = causal_mask(past.positions, past.n_key)  # [n_batch, 1, n_seq, n_key]
    a = attention(q, k, v, mask)  # [n_batch, n_head, n_seq, d_head]
    return linear(merge_heads(a), params.c_proj)  # [n_batch, n_seq, n_embd]


def mlp(x: Array, params: MLP) -> Array:
    """Multi-layer perceptron: two linear maps with gelu between them, applied to each position separately.

    mlp(x) = c_proj(gelu(c_fc(x)))

    Without gelu, the two maps would amount to a single one.

    Shapes: `[..., n_embd]` to `[..., n_embd]`, through `[..., 4 * n_embd]`.
    Source: Vaswani 3.3 (with ReLU); `mlp`.
    """
    hidden = gelu(linear(x, params.c_fc))  # [..., 4 * n_embd]
    return linear(hidden, params.c_proj)  # [..., n_embd]


def block(x: Array, params: Block, n_head: int, past: LayerPast | None = None) -> Array:
    """One transformer block: each position gathers from the positions that it may see, then works on the result.

    x = x + multi_head_attention(ln_1(x))
    x = x + mlp(ln_2(x))

    Each part reads x normalised, and its result is added to x itself. This running sum, to which every block
    adds, is called the residual stream.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Radford 2.3; `block`.
    """
    x = x + multi_head_attention(layer_norm(x, params.ln_1), params.attn, n_head, past)
    x = x + mlp(layer_norm(x, params.ln_2), params.mlp)
    return x
