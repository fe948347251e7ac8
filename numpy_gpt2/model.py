"""The model: from token ids to logits, a score for each token that may come next.

    ids      [n_batch, n_seq]            whole numbers below n_vocab
    embed    [n_batch, n_seq, n_embd]    what the token is, plus where it stands
    h        [n_batch, n_seq, n_embd]    n_layer blocks, each adding what it has found
    ln_f     [n_batch, n_seq, n_embd]
    logits   [n_batch, n_seq, n_vocab]   row i scores the token that follows position i

`Past` remembers the keys and values of positions read before, so that a text is read once and then
continued one token at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .layers import block, layer_norm
from .params import Array, HParams, Params


class LayerPast(NamedTuple):
    """One layer's part of a `Past`."""

    k: Array  # keys, [n_batch, n_head, n_ctx, d_head], of which the first `length` positions count
    v: Array  # values, the same shape
    length: int

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Stores the keys and values of new positions; returns those of all positions so far.

        Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_head, length + n_seq, d_head]`.
        """
        end = self.length + k.shape[-2]
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        return self.k[:, :, :end], self.v[:, :, :end]


class Past:
    """The keys and values of all positions read so far, in every layer (the key/value cache).

    A position's keys and values depend only on what stands before it, so they never change and need
    to be computed only once. There is room for n_ctx positions; memory that no position has filled
    costs nothing.

    Attributes:
        k, v: `[n_layer, n_batch, n_head, n_ctx, d_head]`.
        length: how many positions are filled. Make it smaller to forget the last ones.
    """

    def __init__(self, params: Params, n_head: int, n_batch: int = 1) -> None:
        n_ctx, n_embd = params.wpe.shape
        shape = (len(params.h), n_batch, n_head, n_ctx, n_embd // n_head)
        self.k = np.empty(shape, params.wpe.dtype)
        self.v = np.empty(shape, params.wpe.dtype)
        self.length = 0

    def layer(self, i: int) -> LayerPast:
        """What block i has to know."""
        return LayerPast(self.k[i], self.v[i], self.length)


def embed(ids: Array, params: Params, start: int = 0) -> Array:
    """Looks up a vector for each token and one for its position, and adds them.

    embed(ids)_i = wte[ids_i] + wpe[start + i]

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    Source: Radford et al. 2018, section 3.1; `model` in OpenAI's `src/model.py`.
    """
    return params.wte[ids] + params.wpe[start : start + ids.shape[-1]]


def transformer(ids: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """Everything up to the output head: for each position, a vector that predicts the next token.

    With a past, ids are the tokens that follow those already read; the past then holds these too.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    Source: `model` in OpenAI's `src/model.py`.
    """
    x = embed(ids, params, start=0 if past is None else past.length)
    for i, block_params in enumerate(params.h):
        x = block(x, block_params, n_head, None if past is None else past.layer(i))
    if past is not None:
        past.length += ids.shape[-1]
    return layer_norm(x, params.ln_f)


def output_head(x: Array, params: Params) -> Array:
    """Compares each vector with every token's embedding: the logits.

    output_head(x) = x wte^T

    The matrix that reads tokens in also reads them out ("tied" weights).

    Shapes: `[..., n_embd]` to `[..., n_vocab]`.
    Source: Radford et al. 2018, section 3.1; `model` in OpenAI's `src/model.py`.
    """
    return x @ params.wte.T


def logits(ids: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """The whole model. `softmax(logits)[..., i, :]` is the probability of each token after position i.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_vocab]`.
    Source: `model` in OpenAI's `src/model.py`.
    """
    return output_head(transformer(ids, params, n_head, past), params)


def check_ids(ids: npt.ArrayLike, hparams: HParams, past: Past | None = None) -> Array:
    """Brings token ids from outside into the model's form, after checking that it can read them.

    Shapes: `[n_seq]` or `[n_batch, n_seq]` to `[n_batch, n_seq]`.

    Raises:
        ValueError: ids are empty, ragged, not whole numbers, outside the vocabulary, longer than the
            room that the context has left, or do not fit the past.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ValueError("token ids must be one row of numbers, or several rows of the same length") from error
    if array.size == 0:
        raise ValueError("there are no token ids to read: give at least one")
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"token ids must be whole numbers in the shape [n_seq] or [n_batch, n_seq], "
            f"not {array.dtype} in the shape {list(array.shape)}"
        )
    outside = array[(array < 0) | (array >= hparams.n_vocab)]
    if outside.size:
        raise ValueError(
            f"token id {outside[0]} is outside the vocabulary, which has the ids 0 to {hparams.n_vocab - 1}"
        )
    batch = np.atleast_2d(array)
    n_batch, n_seq = batch.shape
    n_past = 0 if past is None else past.length
    if n_past + n_seq > hparams.n_ctx:
        raise ValueError(
            f"{n_past + n_seq} tokens are too long for this model, whose context holds {hparams.n_ctx}: "
            f"shorten the text by at least {n_past + n_seq - hparams.n_ctx}"
        )
    if past is not None and past.k.shape[1] != n_batch:
        raise ValueError(f"the past is of a batch of {past.k.shape[1]}, the token ids of a batch of {n_batch}")
    return batch
