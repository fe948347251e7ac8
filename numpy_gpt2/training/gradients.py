"""The gradients of GPT-2, written out by hand: one backward function for each function of `layers.py` and `model.py`.

The loss L is one number, computed from the parameters by a chain of functions. Training asks how L changes if any of
the numbers in between is changed a little. So for an array x, of whatever shape,

    d_x    is the array of the same shape with the derivatives  (d_x)_i = dL / dx_i

If y = f(x), the chain rule gives d_x from d_y, since x changes L only through y:

    dL / dx_i = sum_j dL / dy_j  dy_j / dx_i        or        (d_x)_i = sum_j (d_y)_j  dy_j / dx_i

That sum is what `f_backward` computes. It takes what f took, and d_y; it returns d_x and, if f has parameters, the
derivatives with respect to them, in a tree of the same type. Three rules cover most of what follows:

    y = x + z       d_x = d_y and d_z = d_y            a sum hands d_y to each of its terms
    y = x z         d_x = d_y z and d_z = d_y x        a product of two numbers swaps them
    x is used twice    d_x is the sum of what both uses give

The parts of a block are gone through from the last to the first, so that d_y is known when `f_backward` needs it. This
is called backpropagation.

Shapes are those of `layers.py`. The functions compute with the dtype of what they are given.

Sources: Rumelhart et al. 1986, "Learning representations by back-propagating errors"; the papers that `layers.py` names
for the functions themselves.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import layers, model
from ..decoding import prefill
from ..evaluation.scoring import IGNORED
from ..machine.products import add_product, product
from ..params import MLP, Array, Attention, Block, LayerNorm, Linear, Params
from . import forward
from .forward import NO_DROPOUT, Dropout, Kept

# Positions whose loss is computed at once: the logits are by far the largest array.
POSITIONS_AT_ONCE = 64


def softmax_backward(x: Array, d_y: Array) -> Array:
    """The derivatives of `softmax`.

    y_j = exp(x_j) / sum_k exp(x_k)

    The quotient rule gives dy_j / dx_i = y_j (1 if i = j, otherwise 0) - y_j y_i. Summed over j:

    d_x_i = y_i (d_y_i - sum_j d_y_j y_j)

    So only differences count: to raise all of d_y by the same amount changes nothing, since the y_j sum to 1.

    Shapes: `[..., n]` both, to `[..., n]`.

    >>> softmax_backward(np.log([1.0, 2.0, 5.0]), np.array([1.0, 0.0, 0.0])).round(4)
    array([ 0.1094, -0.0312, -0.0781])
    """
    y = layers.softmax(x)
    return y * (d_y - np.sum(d_y * y, axis=-1, keepdims=True))


def gelu_backward(x: Array, d_y: Array) -> Array:
    """The derivatives of `gelu`, by the product rule and the chain rule.

    y = 0.5 x (1 + t),  t = tanh(u),  u = c (x + 0.044715 x^3),  c = sqrt(2 / pi)

    du / dx = c (1 + 3 * 0.044715 x^2)
    dt / du = 1 - t^2
    dy / dx = 0.5 (1 + t) + 0.5 x (1 - t^2) du / dx

    Each y_i depends on x_i alone, so d_x_i = d_y_i dy_i / dx_i.

    Shapes: any, both the same; elementwise.

    >>> gelu_backward(np.array([-3.0, 0.0, 3.0]), np.ones(3)).round(4)
    array([-0.0116,  0.5   ,  1.0116])
    """
    c = math.sqrt(2 / math.pi)
    x2 = x * x
    t = np.tanh(c * x * (1 + 0.044715 * x2))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (c * (1 + 3 * 0.044715 * x2))
    return d_y * slope


def layer_norm_backward(x: Array, params: LayerNorm, d_y: Array) -> tuple[Array, LayerNorm]:
    """The derivatives of `layer_norm`.

    y = g n + b,  n_i = (x_i - mean) / s,  s = sqrt(variance + 1e-5)

    g and b serve every position, so their derivatives are sums over all positions:

    d_g_i = sum d_y_i n_i,    d_b_i = sum d_y_i,    d_n_i = d_y_i g_i

    x_i moves n_i directly, by 1 / s. It also moves the mean, by 1 / n_embd, and s, by n_i / n_embd, both of which move
    every n_j. Together dn_j / dx_i = ((1 if i = j, otherwise 0) - 1 / n_embd - n_j n_i / n_embd) / s, and the sum over
    j is

    d_x_i = (d_n_i - mean_j(d_n_j) - n_i mean_j(d_n_j n_j)) / s

    So d_x has the mean 0, and nothing of the direction of n: to shift or to scale x would change nothing.

    Shapes: x and d_y `[..., n_embd]`, to `[..., n_embd]` and those of params.
    Source: Ba 3; the derivation is also in llm.c, `doc/layernorm`.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
    n = centred / s
    d_n = d_y * params.g
    d_x = (d_n - d_n.mean(axis=-1, keepdims=True) - n * (d_n * n).mean(axis=-1, keepdims=True)) / s
    return d_x, LayerNorm(g=sum_over_positions(d_y * n), b=sum_over_positions(d_y))


def sum_over_positions(x: Array) -> Array:
    """The sum of the vectors of all positions of all texts. Shapes: `[..., n]` to `[n]`."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


def linear_backward(x: Array, params: Linear, d_y: Array) -> tuple[Array, Linear]:
    """The derivatives of `linear`.

    y_pj = sum_i x_pi w_ij + b_j    for each position p

    dy_pj / dx_pi = w_ij, dy_pj / dw_ij = x_pi and dy_pj / db_j = 1. x_pi is used by all outputs j of its own position;
    w_ij and b_j by all positions p. Hence

    d_x_pi = sum_j d_y_pj w_ij,    which is    d_x = d_y w^T
    d_w_ij = sum_p x_pi d_y_pj,    which is    d_w = x^T d_y
    d_b_j = sum_p d_y_pj

    Shapes: x `[..., n_in]`, d_y `[..., n_out]`, to `[..., n_in]` and those of params.

    >>> x, params = np.array([[1.0, 2.0]]), Linear(w=np.array([[3.0], [4.0]]), b=np.array([5.0]))
    >>> d_x, d_params = linear_backward(x, params, np.array([[10.0]]))
    >>> d_x, d_params.w.T, d_params.b
    (array([[30., 40.]]), array([[10., 20.]]), array([10.]))
    """
    x_rows, d_rows = x.reshape(-1, x.shape[-1]), d_y.reshape(-1, d_y.shape[-1])  # [n_batch * n_seq, ...]
    return product(d_y, params.w.T), Linear(w=x_rows.T @ d_rows, b=sum_over_positions(d_y))


def attention_backward(
    q: Array, k: Array, v: Array, mask: Array, d_a: Array, drop: Dropout = NO_DROPOUT
) -> tuple[Array, Array, Array]:
    """The derivatives of `attention`: those with respect to q, k and v.

    a = weights v,  weights = softmax(scores),  scores = q k^T / sqrt(d_head)

    Both products of matrices are treated as in `linear_backward`. Where the mask is False, the score is minus infinity
    and the weight 0, and so is d_scores: its factor y_i in `softmax_backward` is 0.

    d_v = weights^T d_a                      d_weights = d_a v^T
    d_q = d_scores k / sqrt(d_head)          d_k = d_scores^T q / sqrt(d_head)

    Shapes: q, k, v and d_a `[..., n_seq, d_head]`, mask `[n_seq, n_seq]`, to three times `[..., n_seq, d_head]`.
    """
    scores = forward.attention_scores(q, k, mask)  # [..., n_seq, n_seq]
    weights = drop(layers.softmax(scores), forward.WEIGHTS)
    d_v = np.swapaxes(weights, -1, -2) @ d_a
    d_weights = drop(d_a @ np.swapaxes(v, -1, -2), forward.WEIGHTS)
    d_scores = softmax_backward(scores, d_weights) / math.sqrt(q.shape[-1])
    return d_scores @ k, np.swapaxes(d_scores, -1, -2) @ q, d_v


def split_heads_backward(d_heads: Array) -> Array:
    """The derivatives of `split_heads`, which only puts numbers elsewhere: their derivatives go back where they were.

    Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_seq, n_embd]`.
    """
    return layers.merge_heads(d_heads)


def merge_heads_backward(d_merged: Array, n_head: int) -> Array:
    """The derivatives of `merge_heads`, the inverse.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_head, n_seq, d_head]`.
    """
    return layers.split_heads(d_merged, n_head)


def multi_head_attention_backward(
    x: Array, params: Attention, n_head: int, d_y: Array, kept: Kept, drop: Dropout = NO_DROPOUT
) -> tuple[Array, Attention]:
    """The derivatives of `multi_head_attention`: its steps from the last to the first.

    y = c_proj(a),  a = merge_heads(attention(q, k, v)),  q, k, v = split_heads(c_attn(x))

    The forward pass has kept what `c_proj` and attention were given: `kept.a` and `kept.qkv`.

    Shapes: x and d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and those of params.
    """
    d_a, d_c_proj = linear_backward(kept.a, params.c_proj, d_y)
    d_heads = merge_heads_backward(d_a, n_head)  # [n_batch, n_head, n_seq, d_head]
    q, k, v = forward.split_qkv(kept.qkv, n_head)
    d_q, d_k, d_v = attention_backward(q, k, v, forward.causal_mask(x), d_heads, drop)
    d_qkv = split_heads_backward(np.concatenate([d_q, d_k, d_v], axis=1))  # [n_batch, n_seq, 3 * n_embd]
    d_x, d_c_attn = linear_backward(x, params.c_attn, d_qkv)
    return d_x, Attention(d_c_attn, d_c_proj)


def mlp_backward(x: Array, params: MLP, d_y: Array, kept: Kept) -> tuple[Array, MLP]:
    """The derivatives of `mlp`: its steps from the last to the first.

    y = c_proj(hidden),  hidden = gelu(fc),  fc = c_fc(x)

    The forward pass has kept fc.

    Shapes: x and d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and those of params.
    """
    d_hidden, d_c_proj = linear_backward(layers.gelu(kept.fc), params.c_proj, d_y)
    d_fc = gelu_backward(kept.fc, d_hidden)
    d_x, d_c_fc = linear_backward(x, params.c_fc, d_fc)
    return d_x, MLP(d_c_fc, d_c_proj)


def block_backward(
    x: Array, params: Block, n_head: int, d_y: Array, kept: Kept, drop: Dropout = NO_DROPOUT
) -> tuple[Array, Block]:
    """The derivatives of `block`.

    middle = x + drop(multi_head_attention(ln_1(x)))
    y = middle + drop(mlp(ln_2(middle)))

    In each line, the residual stream is used twice, by the sum and by the layer norm, so its derivative is a sum of
    two: what has arrived, unchanged, and what comes back through the part. The unchanged term is why deep models with
    residuals can be trained: no product of small numbers stands between the loss and the first block.

    Shapes: x and d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and those of params.
    Source: He et al. 2016, "Identity mappings in deep residual networks".
    """
    normalised = layers.layer_norm(kept.middle, params.ln_2)
    d_normalised, d_mlp = mlp_backward(normalised, params.mlp, drop(d_y, forward.AFTER_MLP), kept)
    d_through_mlp, d_ln_2 = layer_norm_backward(kept.middle, params.ln_2, d_normalised)
    d_middle = d_y + d_through_mlp

    normalised = layers.layer_norm(x, params.ln_1)
    d_attended = drop(d_middle, forward.AFTER_ATTENTION)
    d_normalised, d_attn = multi_head_attention_backward(normalised, params.attn, n_head, d_attended, kept, drop)
    d_through_attention, d_ln_1 = layer_norm_backward(x, params.ln_1, d_normalised)
    return d_middle + d_through_attention, Block(d_ln_1, d_attn, d_ln_2, d_mlp)


def embed_backward(ids: Array, d_x: Array, d_wte: Array, d_wpe: Array) -> None:
    """Adds the derivatives of `model.embed` to those of the embeddings.

    x_p = wte[id_p] + wpe[p]

    A token that occurs several times is used several times, so the row of wte for it gets the sum of all its d_x_p;
    likewise wpe, where a batch has several texts. The rows of tokens that do not occur get nothing.

    Shapes: ids `[n_batch, n_seq]`, d_x `[n_batch, n_seq, n_embd]`, d_wte `[n_vocab, n_embd]`, d_wpe `[n_ctx, n_embd]`.
    """
    np.add.at(d_wte, ids, d_x)  # unlike d_wte[ids] += d_x, it also counts a token that occurs twice
    d_wpe[: ids.shape[1]] += d_x.sum(axis=0)


def output_head_backward(x: Array, params: Params, d_logits: Array, d_wte: Array | None) -> Array:
    """The derivatives of `model.output_head`, as in `linear_backward` for w = wte^T, without a bias.

    logits = x wte^T

    d_x = d_logits wte,    d_wte = d_logits^T x

    `embed` uses wte as well. So this adds to d_wte, as `embed_backward` does; unless d_wte is None, and not wanted.

    Shapes: x `[..., n_embd]`, d_logits `[..., n_vocab]`, d_wte `[n_vocab, n_embd]`, to `[..., n_embd]`.
    """
    d_rows, x_rows = d_logits.reshape(-1, d_logits.shape[-1]), x.reshape(-1, x.shape[-1])
    if d_wte is not None:
        add_product(d_wte, d_rows.T, x_rows)
    return product(d_logits, params.wte)


def cross_entropy(logits: Array, targets: Array, n_targets: int) -> float:
    """The loss L: how surprising the tokens that followed are for the model, in nats per token.

    L = -1 / n_targets  sum_p log p(target_p),    p = softmax(logits)

    Args:
        logits: `[..., n_vocab]`.
        targets: the id of the token that followed each position, `[...]`; `IGNORED` for one that does not count.
        n_targets: by how many tokens the sum is divided: all of a batch, of which this may be a part.

    Source: Radford et al. 2018, section 3.1.
    """
    counts = targets != IGNORED
    log_p = layers.log_softmax(logits[counts])
    of_targets = np.take_along_axis(log_p, targets[counts][:, None], axis=-1)
    return -float(np.sum(of_targets, dtype=np.float64)) / n_targets


def cross_entropy_backward(logits: Array, targets: Array, n_targets: int) -> Array:
    """The derivatives of `cross_entropy`.

    For one position, log p(target) = logit_target - log(sum_j exp(logit_j)). The derivative of the logarithm of the sum
    with respect to logit_i is exp(logit_i) / sum_j exp(logit_j), which is softmax(logits)_i. Hence

    d_logits_i = (softmax(logits)_i - (1 if i is the target, otherwise 0)) / n_targets

    Each logit is to move towards what the text has: the target's up, by as much as its probability falls short of 1,
    all others down, by their probabilities.

    Shapes: logits `[..., n_vocab]`, targets `[...]`, to `[..., n_vocab]`: 0 where a target is `IGNORED`.

    >>> cross_entropy_backward(np.log([[1.0, 2.0, 5.0]]), np.array([2]), 1).round(3)
    array([[ 0.125,  0.25 , -0.375]])
    """
    counts = (targets != IGNORED)[..., None]
    one_hot = np.arange(logits.shape[-1]) == targets[..., None]
    return np.where(counts, layers.softmax(logits) - one_hot, 0) / n_targets


def gradients(
    ids: Array,
    targets: Array,
    params: Params,
    n_head: int,
    n_targets: int | None = None,
    drop: Dropout = NO_DROPOUT,
    sparing: bool = False,
    first_block: int = 0,
    embeddings: bool = True,
    total: Params | None = None,
) -> tuple[float, Params]:
    """The loss of a batch, and its derivatives with respect to every parameter of the model.

    Args:
        ids: what the model reads, `[n_batch, n_seq]`.
        targets: the token that follows each, `[n_batch, n_seq]`; `IGNORED` where none is to be predicted.
        params, n_head: the model.
        n_targets: by how many tokens the loss is divided; by default, by those of this batch.
        drop: dropout, by default none.
        sparing: whether each block keeps only what it was given, and is computed a second time in the backward pass:
            less memory, a third more time. The result is the same, bit for bit.
        first_block: the first block whose derivatives are wanted. The backward pass ends there.
        embeddings: whether those of the embeddings are wanted; without those of all blocks, they never are.
        total: derivatives to add these to, from a call with the same options; this tree is then returned.

    Returns:
        The loss, in nats per token, and the derivatives: `grads.h[0].mlp.c_fc.w` is that of `params.h[0].mlp.c_fc.w`.
        Where they are not wanted there are zeros, which take no memory and cannot be written to.

    Raises:
        ValueError: a function of `layers` was replaced, and its backward function was not; or no target counts.

    Source of `sparing`: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    check_replaced()
    n_targets = n_targets or int(np.count_nonzero(targets != IGNORED))
    if not n_targets:
        raise ValueError(f"there is nothing to learn: every target is {IGNORED}, which does not count")
    d_wte = d_wpe = None
    if embeddings and not first_block:
        d_wte, d_wpe = (total.wte, total.wpe) if total else (np.zeros_like(params.wte), np.zeros_like(params.wpe))

    x = drop.within(0)(model.embed(ids, params))
    x, stack = forward.blocks(x, params, n_head, drop, sparing, first_block)
    loss, d_x = loss_backward(layers.layer_norm(x, params.ln_f), params, targets, n_targets, d_wte)
    d_x, d_ln_f = layer_norm_backward(x, params.ln_f, d_x)
    del x
    d_x, d_h = blocks_backward(stack, params, n_head, d_x, drop, total)
    if d_wte is None or d_wpe is None:
        d_wte, d_wpe = nothing(params.wte), nothing(params.wpe)
    else:
        embed_backward(ids, drop.within(0)(d_x), d_wte, d_wpe)
    return loss, Params(d_wte, d_wpe, d_h, add(total and total.ln_f, d_ln_f))


def blocks_backward(
    stack: forward.Stack, params: Params, n_head: int, d_y: Array, drop: Dropout, total: Params | None
) -> tuple[Array, tuple[Block, ...]]:
    """The derivatives of the blocks, from the last to the first that kept something; of the others, nothing.

    Shapes: d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and a tree for each block.
    """
    d_h = []
    first_block = len(params.h) - len(stack)
    for i in reversed(range(first_block, len(params.h))):
        x, kept = stack.pop()
        part = drop.within(i + 1)
        kept = kept or forward.block(x, params.h[i], n_head, part)[1]
        d_y, d_block = block_backward(x, params.h[i], n_head, d_y, kept, part)
        d_h.append(add(total and total.h[i], d_block))
    return d_y, (*map(nothing, params.h[:first_block]), *reversed(d_h))


def loss_backward(x: Array, params: Params, targets: Array, n_targets: int, d_wte: Array | None) -> tuple[float, Array]:
    """The loss, from what the last layer norm returned, and its derivatives with respect to that.

    The derivatives of the logits take the place of the logits, a few positions at a time: this is the largest array.

    Shapes: x `[n_batch, n_seq, n_embd]`, targets `[n_batch, n_seq]`, to the loss and `[n_batch, n_seq, n_embd]`. The
    derivatives of wte are added to d_wte.
    """
    logits = model.output_head(x, params)  # [n_batch, n_seq, n_vocab]
    loss = 0.0
    for i in range(0, targets.shape[1], POSITIONS_AT_ONCE):
        at = np.s_[:, i : i + POSITIONS_AT_ONCE]
        loss += cross_entropy(logits[at], targets[at], n_targets)
        logits[at] = cross_entropy_backward(logits[at], targets[at], n_targets)
    return loss, output_head_backward(x, params, logits, d_wte)


def add(total: Any, more: Any) -> Any:
    """The sum of two arrays or trees, in the memory of `total`; if that is None, `more` itself."""
    if total is None:
        return more
    if isinstance(total, tuple):
        return type(total)(*map(add, total, more))
    total += more
    return total


def nothing(part: Any) -> Any:
    """Zeros in place of derivatives that are not computed, shaped like an array or a tree; they take no memory."""
    if isinstance(part, tuple):
        return type(part)(*map(nothing, part))
    return np.broadcast_to(np.zeros((), part.dtype, like=part), part.shape)


# Each function of the forward pass that has a backward function here, as it was when this module was imported.
FORWARD = {
    name: (module, getattr(module, name))
    for name, module in [
        *((name, layers) for name in ("softmax", "gelu", "layer_norm", "linear", "attention")),
        *((name, layers) for name in ("split_heads", "merge_heads", "multi_head_attention", "mlp", "block")),
        *((name, model) for name in ("embed", "output_head")),
    ]
}
BACKWARD = {name: globals()[f"{name}_backward"] for name in FORWARD}


def check_replaced() -> None:
    """Checks that what is derived here is what the model computes.

    Raises:
        ValueError: a function of `layers` or `model` was replaced and its backward function was not; the parts of a
            block were put together in another way; or a trace or a patch is active, which would see only half.
    """
    for name, (module, original) in FORWARD.items():
        replaced = getattr(module, name)
        if replaced is original:
            continue
        where = module.__name__.rpartition(".")[2]
        if name in ("attention", "multi_head_attention", "mlp", "block"):
            raise ValueError(
                f"{where}.{name} was replaced, but training computes its steps one by one, with dropout, in "
                "`training/forward.py`: change them there and in `training/gradients.py`"
            )
        if globals()[f"{name}_backward"] is BACKWARD[name]:
            raise ValueError(
                f"{where}.{name} was replaced, but its derivatives were not: replace gradients.{name}_backward, too"
            )
    if prefill.reads_whole():
        raise ValueError("a trace or a patch is active, and would see only a part of training: leave it first")
