"""The gradients of GPT-2, written out by hand: a backward function beside each function of `layers.py` and `model.py`.

The loss L is one number, computed from the parameters by a chain of functions. Training asks how L changes when any one
of the numbers in between changes slightly. So for an array x of any shape,

    d_x    is the array of the same shape that holds the derivatives    d_x[i] = dL / dx[i]

where i stands for all indices of x together. If y = f(x), then x changes L only through y, and the chain rule gives d_x
from d_y:

    d_x[i] = sum_j d_y[j] dy[j]/dx[i]

That sum is what `f_backward` computes. It takes what f took, and d_y; it returns d_x and, if f has parameters, the
derivatives with respect to them, in a tree of the same type. (dy[j]/dx[i] is an ordinary partial derivative.) Three
rules cover most of what follows:

    y = x + z            d_x = d_y and d_z = d_y        each term of a sum gets d_y
    y = x z              d_x = d_y z and d_z = d_y x    each factor gets d_y times the other one
    x is used twice      d_x is the sum of what both uses give

The functions of a pass are visited from the last to the first, so that d_y is known when `f_backward` needs it. This is
called backpropagation.

Where a function takes or does something else, its docstring says so. `kept` is what the forward pass has kept, to be
used again. The embeddings are used twice, so their functions add to the derivatives that are there already. The chain
ends at the loss, so `cross_entropy_backward` has no d_y: dL/dL = 1.

Shapes are those of `layers.py`; p numbers positions. The functions compute with the dtype of what they are given.

Sources: Rumelhart et al. 1986, "Learning representations by back-propagating errors"; the papers that `layers.py` names
for the functions themselves.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import checks, layers, model
from ..evaluation.scoring import IGNORED
from ..machine.products import add_product, product
from ..params import MLP, Array, Attention, Block, LayerNorm, Linear, Params
from . import agreement, forward
from .forward import NO_DROPOUT, Dropout, Kept

# Positions of a text whose probabilities are computed at once. The logits are made whole, since they are needed whole,
# but nothing else of their size is.
POSITIONS_AT_ONCE = 64


def softmax_backward(x: Array, d_y: Array) -> Array:
    """The derivatives of `softmax`.

    y[j] = exp(x[j]) / sum_k exp(x[k])

    By the quotient rule,

    dy[j]/dx[i] = y[j] - y[j]^2    if i = j
    dy[j]/dx[i] = -y[j] y[i]       otherwise

    Both have the term -y[j] y[i]. The sum over j of d_y[j] dy[j]/dx[i] is

    d_x[i] = y[i] d_y[i] - sum_j d_y[j] y[j] y[i] = y[i] (d_y[i] - sum_j d_y[j] y[j])

    Only differences count: raising every d_y[j] by the same amount changes nothing, since the y[j] sum to 1.

    Shapes: `[..., n]` both, to `[..., n]`.

    >>> softmax_backward(np.log([1.0, 2.0, 5.0]), np.array([1.0, 0.0, 0.0])).round(4)
    array([ 0.1094, -0.0312, -0.0781])
    """
    y = layers.softmax(x)
    return y * (d_y - np.sum(d_y * y, axis=-1, keepdims=True))


def gelu_backward(x: Array, d_y: Array) -> Array:
    """The derivatives of `gelu`, by the product rule and the chain rule.

    y = 0.5 x (1 + t),  t = tanh(u),  u = c (x + 0.044715 x^3),  c = sqrt(2 / pi)

    du/dx = c (1 + 3 * 0.044715 x^2)
    dt/du = 1 - t^2
    dy/dx = 0.5 (1 + t) + 0.5 x (1 - t^2) du/dx

    Each y[i] depends on x[i] alone, so d_x[i] = d_y[i] dy[i]/dx[i].

    Shapes: any, both the same; elementwise.

    >>> gelu_backward(np.array([-3.0, 0.0, 3.0]), np.ones(3)).round(4)
    array([-0.0116,  0.5   ,  1.0116])
    """
    c = math.sqrt(2 / math.pi)
    x2 = x * x
    t = np.tanh(c * x * (1 + 0.044715 * x2))
    du_dx = c * (1 + 3 * 0.044715 * x2)
    dy_dx = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du_dx
    return d_y * dy_dx


def layer_norm_backward(x: Array, params: LayerNorm, d_y: Array) -> tuple[Array, LayerNorm]:
    """The derivatives of `layer_norm`.

    y = g z + b,  z[j] = (x[j] - mean) / s,  s = sqrt(variance + 1e-5),  variance = mean_j((x[j] - mean)^2)

    g and b serve every position, so their derivatives are sums over all positions p:

    d_g[i] = sum_p d_y[p, i] z[p, i],    d_b[i] = sum_p d_y[p, i],    and d_z = d_y g

    For x, take one position, with n = n_embd numbers. x[i] changes z[j] in three ways: directly if i = j, through the
    mean, and through s.

    dmean/dx[i] = 1/n
    dvariance/dx[i] = 2 (x[i] - mean) / n    (that the mean moves adds nothing: the x[j] - mean sum to 0)
    ds/dx[i] = dvariance/dx[i] / (2 s) = z[i] / n
    dz[j]/dx[i] = ((1 if i = j, otherwise 0) - 1/n) / s - z[j]/s ds/dx[i]
                = ((1 if i = j, otherwise 0) - 1/n - z[j] z[i] / n) / s

    The sum over j of d_z[j] dz[j]/dx[i] is

    d_x[i] = (d_z[i] - mean_j(d_z[j]) - z[i] mean_j(d_z[j] z[j])) / s

    The d_x[i] sum to 0: adding the same amount to every x[i] does not change z.

    Shapes: x and d_y `[..., n_embd]`, to `[..., n_embd]` and those of params.
    Source: Ba 3; the derivation is also in llm.c, `doc/layernorm`.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
    z = centred / s
    d_z = d_y * params.g
    d_x = (d_z - d_z.mean(axis=-1, keepdims=True) - z * (d_z * z).mean(axis=-1, keepdims=True)) / s
    return d_x, LayerNorm(g=sum_over_positions(d_y * z), b=sum_over_positions(d_y))


def sum_over_positions(x: Array) -> Array:
    """The sum of the vectors of all positions of all texts. Shapes: `[..., n]` to `[n]`."""
    return x.reshape(-1, x.shape[-1]).sum(axis=0)


def linear_backward(x: Array, params: Linear, d_y: Array) -> tuple[Array, Linear]:
    """The derivatives of `linear`.

    y[p, j] = sum_i x[p, i] w[i, j] + b[j]    for each position p

    The partial derivatives are dy[p, j]/dx[p, i] = w[i, j], dy[p, j]/dw[i, j] = x[p, i] and dy[p, j]/db[j] = 1. Each
    x[p, i] is used by all outputs j of its position, each w[i, j] and b[j] by all positions p. Hence

    d_x[p, i] = sum_j d_y[p, j] w[i, j]    as a product of matrices: d_x = d_y w^T
    d_w[i, j] = sum_p x[p, i] d_y[p, j]                              d_w = x^T d_y
    d_b[j] = sum_p d_y[p, j]

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

    a = drop(weights) v,  weights = softmax(scores),  scores = q k^T / sqrt(d_head)

    Each text and each head is computed for itself. In a product of two matrices, the derivative of either factor is a
    product of d_y with the other one, transposed, as in `linear_backward`. From the last step to the first:

    d_v = drop(weights)^T d_a
    d_weights = drop(d_a v^T)                  the same numbers are dropped: see `forward.Dropout`
    d_scores = softmax_backward(scores, d_weights)
    d_q = d_scores k / sqrt(d_head)
    d_k = d_scores^T q / sqrt(d_head)          k is transposed in the forward pass, so d_scores is here

    Where the mask is False, the score is a constant, minus infinity, and q and k get nothing through it. That needs no
    code: its weight y[i] is 0, and so is d_scores, by the factor y[i] in `softmax_backward`.

    Shapes: q, k, v and d_a `[..., n_seq, d_head]`, mask `[n_seq, n_seq]`, to three times `[..., n_seq, d_head]`.
    """
    scores = forward.attention_scores(q, k, mask)  # [..., n_seq, n_seq]
    dropped = drop(layers.softmax(scores), forward.WEIGHTS)
    d_v = np.swapaxes(dropped, -1, -2) @ d_a
    d_weights = drop(d_a @ np.swapaxes(v, -1, -2), forward.WEIGHTS)
    d_scores = softmax_backward(scores, d_weights)
    d_products = d_scores / math.sqrt(q.shape[-1])  # those of q k^T
    return d_products @ k, np.swapaxes(d_products, -1, -2) @ q, d_v


def split_heads_backward(d_heads: Array) -> Array:
    """The derivatives of `split_heads`. It only rearranges numbers, so their derivatives are rearranged back.

    Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_seq, n_embd]`.
    """
    return layers.merge_heads(d_heads)


def merge_heads_backward(d_merged: Array, n_head: int) -> Array:
    """The derivatives of `merge_heads`, the inverse of `split_heads`.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_head, n_seq, d_head]`.
    """
    return layers.split_heads(d_merged, n_head)


def multi_head_attention_backward(
    x: Array, params: Attention, n_head: int, d_y: Array, kept: Kept, drop: Dropout = NO_DROPOUT
) -> tuple[Array, Attention]:
    """The derivatives of `multi_head_attention`: its steps from the last to the first.

    qkv = c_attn(x)
    q, k, v = the three thirds of split_heads(qkv), with 3 n_head heads
    merged = merge_heads(attention(q, k, v))
    y = c_proj(merged)

    The forward pass has kept qkv and merged.

    Shapes: x and d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and those of params.
    """
    d_merged, d_c_proj = linear_backward(kept.merged, params.c_proj, d_y)
    d_heads = merge_heads_backward(d_merged, n_head)  # [n_batch, n_head, n_seq, d_head]
    q, k, v = forward.split_qkv(kept.qkv, n_head)
    d_q, d_k, d_v = attention_backward(q, k, v, forward.causal_mask(x), d_heads, drop)
    d_heads = np.concatenate([d_q, d_k, d_v], axis=1)  # [n_batch, 3 * n_head, n_seq, d_head]: q, then k, then v
    d_x, d_c_attn = linear_backward(x, params.c_attn, split_heads_backward(d_heads))
    return d_x, Attention(d_c_attn, d_c_proj)


def mlp_backward(x: Array, params: MLP, d_y: Array, kept: Kept) -> tuple[Array, MLP]:
    """The derivatives of `mlp`: its steps from the last to the first.

    fc = c_fc(x)
    hidden = gelu(fc)
    y = c_proj(hidden)

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
    """The derivatives of `block`: its two lines from the last to the first.

    middle = x + drop(multi_head_attention(ln_1(x)))
    y = middle + drop(mlp(ln_2(middle)))

    In each line, the residual stream is used twice, by the sum and by the layer norm. So its derivative is a sum of
    two: the one that has arrived, and the one that comes back through attention or the MLP.

    d_middle = d_y + (d_y back through drop, mlp and ln_2)
    d_x = d_middle + (d_middle back through drop, multi_head_attention and ln_1)

    The first term reaches the first block without being multiplied by anything in the blocks above. That is what makes
    deep models with residual connections easy to train.

    The forward pass has kept middle.

    Shapes: x and d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and those of params.
    Source: He et al. 2016, "Identity mappings in deep residual networks".
    """
    middle = kept.middle
    d_normed, d_mlp = mlp_backward(layers.layer_norm(middle, params.ln_2), params.mlp, drop(d_y, forward.MLP_OUT), kept)
    d_through_mlp, d_ln_2 = layer_norm_backward(middle, params.ln_2, d_normed)
    d_middle = d_y + d_through_mlp

    normed, d_attended = layers.layer_norm(x, params.ln_1), drop(d_middle, forward.ATTENTION_OUT)
    d_normed, d_attn = multi_head_attention_backward(normed, params.attn, n_head, d_attended, kept, drop)
    d_through_attention, d_ln_1 = layer_norm_backward(x, params.ln_1, d_normed)
    return d_middle + d_through_attention, Block(d_ln_1, d_attn, d_ln_2, d_mlp)


def embed_backward(ids: Array, d_x: Array, d_wte: Array, d_wpe: Array) -> None:
    """Adds the derivatives of `model.embed` to those of the embeddings.

    x[p] = wte[ids[p]] + wpe[p]

    A token that occurs several times is used several times, so its row of d_wte gets the sum of all its d_x[p];
    likewise a row of d_wpe, where a batch has several texts. The rows of tokens that do not occur get nothing.

    Shapes: ids `[n_batch, n_seq]`, d_x `[n_batch, n_seq, n_embd]`, d_wte `[n_vocab, n_embd]`, d_wpe `[n_ctx, n_embd]`.
    """
    np.add.at(d_wte, ids, d_x)  # unlike d_wte[ids] += d_x, it also counts a token that occurs twice
    d_wpe[: ids.shape[1]] += d_x.sum(axis=0)


def output_head_backward(x: Array, params: Params, d_logits: Array, d_wte: Array | None) -> Array:
    """The derivatives of `model.output_head`, as in `linear_backward` with w = wte^T and without a bias.

    logits = x wte^T

    d_x = d_logits wte
    d_wte = d_logits^T x

    `embed` uses wte as well, so this adds to d_wte, unless d_wte is None: then it is not wanted.

    Shapes: x `[..., n_embd]`, d_logits `[..., n_vocab]`, d_wte `[n_vocab, n_embd]`, to `[..., n_embd]`.
    """
    d_rows, x_rows = d_logits.reshape(-1, d_logits.shape[-1]), x.reshape(-1, x.shape[-1])
    if d_wte is not None:
        add_product(d_wte, d_rows.T, x_rows)
    return product(d_logits, params.wte)


def cross_entropy(logits: Array, targets: Array, n_targets: int) -> float:
    """The loss L: how much the tokens that followed surprise the model, in nats per token.

    L = -1/n_targets sum_p log_softmax(logits[p])[targets[p]]

    Args:
        logits: `[..., n_vocab]`.
        targets: the id of the token that followed each position, `[...]`; `IGNORED` for one that does not count.
        n_targets: how many targets count in the whole batch, of which this may be a part.

    Source: Radford et al. 2018, section 3.1.
    """
    is_counted = targets != IGNORED
    log_p = layers.log_softmax(logits[is_counted])
    of_targets = np.take_along_axis(log_p, targets[is_counted][:, None], axis=-1)
    return -float(np.sum(of_targets, dtype=np.float64)) / n_targets


def cross_entropy_backward(logits: Array, targets: Array, n_targets: int) -> Array:
    """The derivatives of `cross_entropy`.

    For one position, log_softmax(logits)[target] = logits[target] - log(sum_j exp(logits[j])). The derivative of the
    second term with respect to logits[i] is exp(logits[i]) / sum_j exp(logits[j]), which is softmax(logits)[i]. In L,
    all of this has the factor -1/n_targets. Hence

    d_logits[p, i] = (softmax(logits[p])[i] - (1 if i = targets[p], otherwise 0)) / n_targets

    A step goes against the gradient. So the logit of the target goes up, by as much as its probability falls short of
    1, and all others go down, each by its probability. A target that is `IGNORED` is not in L, so its row is 0.

    Shapes: logits `[..., n_vocab]`, targets `[...]`, to `[..., n_vocab]`.

    >>> cross_entropy_backward(np.log([[1.0, 2.0, 5.0]]), np.array([2]), 1).round(3)
    array([[ 0.125,  0.25 , -0.375]])
    """
    d_logits = np.exp(layers.log_softmax(logits))  # softmax
    is_counted = targets != IGNORED
    d_logits[np.logical_not(is_counted)] = 0
    d_logits[(*np.nonzero(is_counted), targets[is_counted])] -= 1
    d_logits /= n_targets
    return d_logits


class Wanted(NamedTuple):
    """Which derivatives are wanted: those of the blocks from a first one on, of the last layer norm, and what else."""

    first_block: int = 0
    embeddings: bool = True  # only where all blocks are


EVERYTHING = Wanted()


def gradients(
    ids: Array,
    targets: Array,
    params: Params,
    n_head: int,
    n_targets: int | None = None,
    drop: Dropout = NO_DROPOUT,
    sparing: bool = False,
    wanted: Wanted = EVERYTHING,
    total: Params | None = None,
) -> tuple[float, Params]:
    """The loss of a batch, and its derivatives with respect to every parameter of the model.

    Args:
        ids: what the model reads, `[n_batch, n_seq]`.
        targets: the token that follows each, `[n_batch, n_seq]`; `IGNORED` where none is to be predicted.
        params, n_head: the model.
        n_targets: how many targets count, if this is a part of a larger batch.
        drop: dropout, by default none.
        sparing: whether each block keeps only what it was given, and is computed a second time in the backward pass:
            less memory, a quarter more time. The result is the same, bit for bit.
        wanted: which derivatives are wanted. The backward pass ends with the first block of which they are.
        total: derivatives from a call with the same options. These are added to them, in place, and the sums returned.

    Returns:
        The loss, in nats per token, and the derivatives: `grads.h[0].mlp.c_fc.w` is that of `params.h[0].mlp.c_fc.w`.
        Those that are not wanted are zeros, which take no memory and cannot be written to.

    Raises:
        ValueError: `checked_batch` refuses the batch, or no target counts; or `agreement.check` refuses what the model
            computes.

    Source of `sparing`: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    agreement.check()
    ids, targets = checked_batch(ids, targets, params, n_head)
    if n_targets is None:
        n_targets = int(np.count_nonzero(targets != IGNORED))
    if not n_targets:
        raise ValueError(f"there is nothing to learn: every target is {IGNORED}, which does not count")
    d_wte = d_wpe = None
    if wanted.embeddings and not wanted.first_block:
        d_wte, d_wpe = (total.wte, total.wpe) if total else (np.zeros_like(params.wte), np.zeros_like(params.wpe))

    x = drop.within(0)(model.embed(ids, params))
    x, stack = forward.blocks(x, params, n_head, drop, sparing, wanted.first_block)
    loss, d_normed = loss_backward(layers.layer_norm(x, params.ln_f), params, targets, n_targets, d_wte)
    d_x, d_ln_f = layer_norm_backward(x, params.ln_f, d_normed)
    del x  # of what the last block returned, nothing is needed any more
    d_x, d_h = blocks_backward(stack, params, n_head, d_x, drop, total)
    if d_wte is None or d_wpe is None:
        d_wte, d_wpe = unwanted(params.wte), unwanted(params.wpe)
    else:
        embed_backward(ids, drop.within(0)(d_x), d_wte, d_wpe)
    return loss, Params(d_wte, d_wpe, d_h, add(total and total.ln_f, d_ln_f))


def blocks_backward(
    stack: forward.Stack, params: Params, n_head: int, d_y: Array, drop: Dropout, total: Params | None
) -> tuple[Array, tuple[Block, ...]]:
    """The derivatives of all blocks, from the last to the first that is on the stack; of the others, none.

    The stack is empty afterwards: what a block has kept is freed as soon as it has been used.

    Shapes: d_y `[n_batch, n_seq, n_embd]`, to `[n_batch, n_seq, n_embd]` and a tree for each block.
    """
    d_h = []
    first_block = len(params.h) - len(stack)
    for i in reversed(range(first_block, len(params.h))):
        x, kept = stack.pop()
        of_block = drop.within(i + 1)
        if kept is None:
            _, kept = forward.block(x, params.h[i], n_head, of_block)
        d_y, d_block = block_backward(x, params.h[i], n_head, d_y, kept, of_block)
        d_h.append(add(total and total.h[i], d_block))
    return d_y, (*map(unwanted, params.h[:first_block]), *reversed(d_h))


def loss_backward(x: Array, params: Params, targets: Array, n_targets: int, d_wte: Array | None) -> tuple[float, Array]:
    """The loss, from what the last layer norm returned, and the derivatives with respect to that.

    The derivatives of the logits take the place of the logits, a few positions at a time: no array is larger.

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


def unwanted(part: Any) -> Any:
    """Zeros for derivatives that are not computed, shaped like an array or a tree. They take no memory."""
    if isinstance(part, tuple):
        return type(part)(*map(unwanted, part))
    return np.broadcast_to(np.zeros((), part.dtype, like=part), part.shape)


def is_wanted(array: Array) -> bool:
    """Whether derivatives were computed, and are not `unwanted`."""
    return array.flags.writeable or any(array.strides)


def checked_batch(ids: Array, targets: Array, params: Params, n_head: int) -> tuple[Array, Array]:
    """A batch, if the model can learn from it.

    Raises:
        ValueError: ids or targets are not of the shape `[n_batch, n_seq]` or not ids of the model, they are too many
            for its context, or the model has no n_head heads.
    """
    if np.ndim(ids) != 2:
        raise ValueError("ids must have the shape [n_batch, n_seq]: a single text is ids[None]")
    n_vocab, n_embd = params.wte.shape
    n_ctx, n_seq = len(params.wpe), np.shape(ids)[1]
    ids = checks.check_indices("ids", ids, np.shape(ids), n_vocab)
    targets = checks.check_indices("targets", targets, np.shape(ids), n_vocab, IGNORED)
    if n_seq > n_ctx:
        raise ValueError(f"{n_seq} tokens are too many for this model, whose context holds {n_ctx}")
    if n_embd % checks.check_whole_number("n_head", n_head, at_least=1):
        raise ValueError(f"n_head must divide n_embd, {n_embd}, and be that of the model; it is {n_head!r}")
    return ids, targets
