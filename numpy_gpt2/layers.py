"""The mathematics of GPT-2, one function for each part, from softmax up to a whole block.

The first axis is the batch. `x` is `[n_batch, n_seq, n_embd]`: n_embd numbers for each of the n_seq
tokens given, in each text of the batch. Inside attention, queries, keys and values are computed from x
and cut into heads, `[n_batch, n_head, n_seq, d_head]` with `d_head = n_embd / n_head`. Queries are those
of the n_seq tokens given; keys may also come from tokens read before, so that n_query = n_seq and
n_key >= n_seq.

Each function takes only its own part of the parameters as `params`.

Sources are given by section, and with the name that the function has in OpenAI's `src/model.py`:

    Vaswani et al. 2017, "Attention Is All You Need"
    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": the GPT-2 paper
    Ba et al. 2016, "Layer Normalization"
    Hendrycks and Gimpel 2016, "Gaussian Error Linear Units (GELUs)"
    Rabe and Staats 2021, "Self-attention Does Not Need O(n^2) Memory"
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from .params import MLP, Array, Attention, Block, LayerNorm, Linear

QUERIES = 64  # of attention at a time, in each head
FEW_ROWS = 5  # so many are multiplied faster one by one than together, by the OpenBLAS that NumPy comes with


def softmax(x: Array) -> Array:
    """Turns scores into probabilities along the last axis: none negative, summing to 1.

    softmax(x)_i = exp(x_i) / sum_j exp(x_j)

    Subtracting the largest score from all leaves the quotient as it is, and exp cannot overflow.

    Shapes: `[..., n]` to `[..., n]`.
    Source: Vaswani 3.2.1; `softmax`.

    >>> softmax(np.log([1.0, 2.0, 5.0])).round(3)
    array([0.125, 0.25 , 0.625])
    """
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    e /= np.sum(e, axis=-1, keepdims=True)  # in place: a new array would take longer than the division
    return e


def log_softmax(x: Array) -> Array:
    """The natural logarithms of the probabilities that softmax gives: never above 0.

    log_softmax(x)_i = x_i - log(sum_j exp(x_j))

    A text's probability is the product of its tokens', which soon is too small a number to hold; the
    sum of their logarithms is not. Here, too, the largest score is subtracted first.

    Shapes: `[..., n]` to `[..., n]`.
    Source: the logarithm of softmax.

    >>> np.exp(log_softmax(np.log([1.0, 2.0, 5.0]))).round(3)
    array([0.125, 0.25 , 0.625])
    """
    x = x - np.max(x, axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def gelu(x: Array) -> Array:
    """Gaussian error linear unit: leaves large positive numbers as they are, and brings negative ones close to 0.

    gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

    The exact function is x P(X <= x) for a standard normal X; GPT-2 was trained with this
    approximation of it.

    Shapes: any, elementwise.
    Source: Hendrycks 2; `gelu`.

    >>> gelu(np.array([-3.0, -1.0, 0.0, 1.0, 3.0])).round(4)
    array([-0.0036, -0.1588,  0.    ,  0.8412,  2.9964])
    """
    # x * x * x is many times faster in NumPy than x**3; and in this order, it needs few arrays in between.
    return 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))) * x


def layer_norm(x: Array, params: LayerNorm) -> Array:
    """Brings each vector to mean 0 and variance 1, then scales and shifts it by learned amounts.

    layer_norm(x) = g (x - mean(x)) / sqrt(var(x) + 1e-5) + b

    What follows gets numbers of about the same magnitude, however large x has grown. Mean and variance
    are those of one vector, never over other positions or texts; 1e-5 avoids a division by zero.

    Shapes: `[..., n_embd]` to `[..., n_embd]`.
    Source: Ba 3; `norm`.

    >>> layer_norm(np.array([1.0, 3.0]), LayerNorm(g=np.array([1.0, 10.0]), b=np.array([0.0, 5.0]))).round(3)
    array([-1., 15.])
    """
    n_embd = x.shape[-1]
    centred = x - np.sum(x, axis=-1, keepdims=True) / n_embd  # for one token, np.mean takes twice as long
    variance = np.sum(centred * centred, axis=-1, keepdims=True) / n_embd
    return params.g * (centred / np.sqrt(variance + 1e-5)) + params.b


def linear(x: Array, params: Linear) -> Array:
    """Multiplies each vector by a matrix and adds a bias.

    linear(x) = x w + b

    Shapes: `[..., n_in]` to `[..., n_out]`.
    Source: `conv1d`, a convolution of width 1, which is the same.

    >>> linear(np.array([1.0, 2.0]), Linear(w=np.array([[1.0, 10.0], [2.0, 20.0]]), b=np.array([0.5, 0.0])))
    array([ 5.5, 50. ])
    """
    rows = x.reshape(-1, x.shape[-1])  # of all texts: w is to be read once, not once for each
    if len(rows) <= FEW_ROWS:
        rows = rows[:, None]  # matrices of one row, which NumPy multiplies one after the other
    y = rows @ params.w + params.b
    return y.reshape(*x.shape[:-1], y.shape[-1])


def attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Gives each position a weighted average of the values at the positions that it may see.

    attention(q, k, v, mask) = softmax(q k^T / sqrt(d_head), minus infinity where mask is False) v

    From each position come three vectors: a query (what it looks for), a key (what it can be found by)
    and a value (what it hands over). The score of a query and a key is their dot product; softmax turns
    a query's scores into weights that sum to 1, and a score of minus infinity into the weight 0.
    Dividing by sqrt(d_head) keeps the typical score from growing with d_head: very large scores would
    put almost all the weight on one key.

    Shapes: q `[..., n_query, d_head]`, k and v `[..., n_key, d_head]`, mask `[..., n_query, n_key]` (or
    without leading axes, the same for every text and head) to `[..., n_query, d_head]`.
    Source: Vaswani 3.2.1; `multihead_attn` and `mask_attn_weights`.

    Two positions with equal keys: the first sees only itself, the second takes the mean of both values.

    >>> attention(np.ones((2, 1)), np.ones((2, 1)), np.array([[1.0], [3.0]]), causal_mask(np.arange(2), 2))
    array([[1.],
           [2.]])
    """
    scores = (q / math.sqrt(q.shape[-1])) @ np.swapaxes(k, -1, -2)  # [..., n_query, n_key]
    scores = np.where(mask, scores, -math.inf)
    weights = softmax(scores)  # [..., n_query, n_key]
    return weights @ v  # [..., n_query, d_head]


def causal_attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Attention for queries at consecutive positions, the last key's being the last of them; QUERIES of them at a time.

    The same as `attention`. But no array of all scores is made, which of a long text would take much
    memory; and what comes after all queries of a piece, which the mask hides from them, is left out
    before anything is computed: of a whole text, nearly half of the work.

    Shapes: as for `attention`.
    Source: Rabe and Staats 2, who also cut the keys into pieces.
    """
    n_query, n_key = mask.shape[-2:]
    pieces = []
    for i in range(0, n_query, QUERIES):
        j = min(i + QUERIES, n_query)
        seen = n_key - (n_query - j)  # the keys up to that of the piece's last query
        pieces.append(attention(q[..., i:j, :], k[..., :seen, :], v[..., :seen, :], mask[..., i:j, :seen]))
    return np.concatenate(pieces, axis=-2)


def causal_mask(positions: Array, n_key: int) -> Array:
    """Which keys each query may see: that of its own position and all before it.

    causal_mask(positions)_ij = (j <= positions_i)

    In training, the whole text is given at once: a position that saw what follows could look up the very
    token that it has to predict. In use, since nothing that follows can change a position's key and
    value, these can be kept.

    Shapes: positions of the queries `[..., n_query]` to `[..., n_query, n_key]`, True where the query may look.
    Source: Vaswani 3.2.3; `attention_mask`.

    Queries at the last two of four positions:

    >>> causal_mask(np.array([2, 3]), 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    return np.arange(n_key, like=positions) <= positions[..., None]


def split_heads(x: Array, n_head: int) -> Array:
    """Cuts each vector into n_head equal parts, and puts heads before positions, since `@` works on the last two axes.

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


class KeyValueStore(Protocol):
    """What attention asks of the past; `model.LayerPast` does it."""

    def append(self, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """Keeps the keys and values of new positions, and returns those of all, and which each new one may see.

        Shapes: `[n_batch, n_head, n_seq, d_head]` twice, to `[n_batch, n_head, n_key, d_head]` twice and
        `[n_batch, 1, n_seq, n_key]`.
        """


def multi_head_attention(x: Array, params: Attention, n_head: int, past: KeyValueStore | None = None) -> Array:
    """Runs n_head attentions side by side, and mixes the results.

    multi_head_attention(x) = c_proj(concat(head_0, head_1, ...))
    head_i = attention(q_i, k_i, v_i, mask), where q_i is the i-th part of q, and q, k, v = c_attn(x)

    Each head has queries, keys and values of its own, d_head numbers long, so that a position can look
    for n_head different things at once.

    With a past, x holds only new positions. Their keys and values are added to the past, and attention
    sees old and new.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Vaswani 3.2.2; `attn`.
    """
    qkv = split_heads(linear(x, params.c_attn), 3 * n_head)  # [n_batch, 3 * n_head, n_seq, d_head]
    q, k, v = qkv[:, :n_head], qkv[:, n_head : 2 * n_head], qkv[:, 2 * n_head :]  # [n_batch, n_head, n_seq, d_head]
    if past is None:
        mask = causal_mask(np.arange(x.shape[1], like=x), n_key=x.shape[1])  # [n_seq, n_seq]
    else:
        k, v, mask = past.append(k, v)  # [n_batch, n_head, n_key, d_head] twice, [n_batch, 1, n_seq, n_key]
    a = causal_attention(q, k, v, mask)  # [n_batch, n_head, n_seq, d_head]
    return linear(merge_heads(a), params.c_proj)  # [n_batch, n_seq, n_embd]


def mlp(x: Array, params: MLP) -> Array:
    """Multi-layer perceptron: two linear maps with gelu in between, at each position separately.

    mlp(x) = c_proj(gelu(c_fc(x)))

    Without gelu, the two maps would be no more than one.

    Shapes: `[..., n_embd]` to `[..., n_embd]`, through `[..., 4 * n_embd]`.
    Source: Vaswani 3.3 (with ReLU there); `mlp`.
    """
    hidden = gelu(linear(x, params.c_fc))  # [..., 4 * n_embd]
    return linear(hidden, params.c_proj)  # [..., n_embd]


def block(x: Array, params: Block, n_head: int, past: KeyValueStore | None = None) -> Array:
    """One transformer block: each position gathers from those that it may see, then works on what it got.

    x = x + multi_head_attention(ln_1(x))
    x = x + mlp(ln_2(x))

    Each part reads x normalised, and its result is added to x itself. This sum, to which every block
    adds, is called the residual stream.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Radford 2.3; `block`.
    """
    x = x + multi_head_attention(layer_norm(x, params.ln_1), params.attn, n_head, past)
    x = x + mlp(layer_norm(x, params.ln_2), params.mlp)
    return x
