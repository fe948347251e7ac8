"""The model: from token ids to logits, a score for each token that may come next.

A text is a row of tokens, pieces of words; a token's id is its number in the vocabulary. What becomes of them:

    token ids                             [n_batch, n_seq]
    embeddings of tokens and positions    [n_batch, n_seq, n_embd]
    after each of the n_layer blocks      [n_batch, n_seq, n_embd]
    normalised a last time                [n_batch, n_seq, n_embd]
    logits                                [n_batch, n_seq, n_vocab]    row i scores what follows token i

A `Past` keeps what was computed for the tokens read so far, so that a text can be continued one token
at a time without reading it again.

Source of all: `model` in OpenAI's `src/model.py`. The functions trust their ids: what comes from outside
goes through `check_ids` first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .layers import block, layer_norm
from .params import Array, HParams, Params


class LayerPast(NamedTuple):
    """One block's part of a `Past`."""

    k: Array  # keys, [n_batch, n_head, n_ctx, d_head]; the first `length` positions are filled
    v: Array  # values, the same shape
    length: int  # positions filled before this pass

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Keeps the keys and values of new positions, and returns those of all positions, old and new.

        All blocks of one pass begin at the same `length`; `transformer` advances `Past.length` at the end.

        Shapes: `[n_batch, n_head, n_seq, d_head]` to `[n_batch, n_head, length + n_seq, d_head]`.
        """
        end = self.length + k.shape[-2]
        self.k[:, :, self.length : end] = k
        self.v[:, :, self.length : end] = v
        return self.k[:, :, :end], self.v[:, :, :end]


class Past:
    """The keys and values of all tokens read so far, in every block (the key/value cache).

    They depend on a token and those before it, never on what follows: computed once, they stay. There
    is room for n_ctx tokens of each of n_batch texts, which are all read in step.

    Attributes:
        params: the parameters that it was made with; with others it means nothing.
        k, v: `[n_layer, n_batch, n_head, n_ctx, d_head]`.
        length: how many positions are filled. Lower it to forget the last ones.
    """

    def __init__(self, params: Params, n_head: int, n_batch: int = 1) -> None:
        self.params = params
        n_ctx, n_embd = params.wpe.shape
        shape = (len(params.h), n_batch, n_head, n_ctx, n_embd // n_head)
        self.k = np.empty_like(params.wpe, shape=shape)
        self.v = np.empty_like(params.wpe, shape=shape)
        self.length = 0

    def layer(self, i: int) -> LayerPast:
        """The part of block i: views of `k` and `v`, so that what the block keeps is kept here."""
        return LayerPast(self.k[i], self.v[i], self.length)


def embed(ids: Array, params: Params, start: int = 0) -> Array:
    """Gives each token the sum of two vectors: one for the token and one for its position.

    embed(ids)_i = wte[ids_i] + wpe[start + i] for one text, whose first token here stands at `start`

    But for the mask, attention knows nothing of order: where a token stands has to be in its vector.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    Source: Vaswani et al. 2017, section 3.5 (there the positions' vectors are not learned).
    """
    return params.wte[ids] + params.wpe[start : start + ids.shape[-1]]


def transformer(ids: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """Everything before the output head: for each position, the vector that the next token is scored with.

    With a past, ids continue the text that it holds; afterwards it holds them as well.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    Source: Radford et al. 2019, section 2.3.
    """
    x = embed(ids, params, start=0 if past is None else past.length)
    for i, block_params in enumerate(params.h):
        x = block(x, block_params, n_head, None if past is None else past.layer(i))
    if past is not None:
        past.length += ids.shape[-1]
    return layer_norm(x, params.ln_f)


def output_head(x: Array, params: Params) -> Array:
    """The logits: the dot product of each vector with each token's embedding.

    output_head(x) = x wte^T

    The same matrix embeds the tokens and scores them ("tied" weights).

    Shapes: `[..., n_embd]` to `[..., n_vocab]`.
    Source: Vaswani et al. 2017, section 3.4.
    """
    return x @ params.wte.T


def logits(ids: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """The whole model. The softmax of row i is the probability of each token to come right after `ids_i`.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_vocab]`.
    """
    return output_head(transformer(ids, params, n_head, past), params)


def check_ids(ids: npt.ArrayLike, hparams: HParams, past: Past | None = None) -> Array:
    """Checks token ids from outside, and returns them with the batch axis that the model wants.

    Shapes: `[n_seq]` or `[n_batch, n_seq]` to `[n_batch, n_seq]`.

    Raises:
        ValueError: ids are empty, of rows of different lengths, not whole numbers, outside the
            vocabulary, too many for the context, or of another batch size than the past.
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
        read = f" ({n_past} of them read before)" if n_past else ""
        raise ValueError(
            f"{n_past + n_seq} tokens{read} are too many for this model, whose context holds {hparams.n_ctx}"
        )
    if past is not None and past.k.shape[1] != n_batch:
        raise ValueError(
            f"the past was made for a batch of {past.k.shape[1]}, but the token ids are a batch of {n_batch}"
        )
    return batch
