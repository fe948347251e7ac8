"""The model: from token ids to logits, a score for each token that may come next.

A text is a row of tokens, pieces of words; a token's id is its number in the vocabulary. What becomes of them:

    token ids                             [n_batch, n_seq]
    embeddings of tokens and positions    [n_batch, n_seq, n_embd]
    after each of the n_layer blocks      [n_batch, n_seq, n_embd]
    normalised a last time                [n_batch, n_seq, n_embd]
    logits                                [n_batch, n_seq, n_vocab]    row i scores what follows token i

A `Past` keeps what was computed for the tokens read so far, so that texts can be continued one token at
a time without reading them again.

Source of all: `model` in OpenAI's `src/model.py`. The functions trust their ids: what comes from outside
goes through `check_ids` and `check_fits` first.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .layers import block, causal_mask, layer_norm
from .params import Array, HParams, Params

PIECE = 512  # how many tokens are read at once: fewer make slow products, more need memory
FEW_VECTORS = 63  # up to so many, `output_head` multiplies in another order,
PART = 1024  # and for so many tokens of the vocabulary at a time


def keep_freed_memory() -> None:
    """Lets the memory of arrays that are no longer needed stay with the program, for the next ones.

    A pass makes many arrays of some megabytes and drops them at once. The C library of Linux gives such
    memory back to the system and asks for it again, and the system hands it out page by page, which
    takes longer than most of the arithmetic. What is kept depends on the largest block that was ever
    freed, up to 32 MB: so this frees one, which is never written to. It holds for the whole process;
    on other systems it does nothing.

    Source: M_MMAP_THRESHOLD in mallopt(3).
    """
    np.empty(2**25 - 2**16, np.uint8)


keep_freed_memory()

Index: TypeAlias = tuple[slice, slice, slice] | tuple[Array, Array, Array]  # of texts, heads and positions


class LayerPast(NamedTuple):
    """One block's part of a `Past` during one pass."""

    k: Array  # keys, [n_batch, n_head, room, d_head]
    v: Array  # values, the same shape
    new: Index  # of the new positions: k[new] is [n_batch, n_head, n_seq, d_head]
    mask: Array  # which keys a position may see, [n_batch, 1, n_seq, n_key]: the same for all heads

    def append(self, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """Keeps the keys and values of new positions, and returns those of all, and which each new one may see.

        All blocks of one pass begin at the same positions; `Past.lengths` advances at the end of the pass.

        Shapes: `[n_batch, n_head, n_seq, d_head]` twice, to `[n_batch, n_head, n_key, d_head]` twice and
        `[n_batch, 1, n_seq, n_key]`.
        """
        self.k[self.new] = k
        self.v[self.new] = v
        n_key = self.mask.shape[-1]
        return self.k[:, :, :n_key], self.v[:, :, :n_key], self.mask


class Past:
    """The keys and values of all tokens read so far, in every block (the key/value cache).

    They depend on a token and those before it, never on what follows: computed once, they stay. Each of
    n_batch texts has a length of its own. Texts that were read together, padded on the right to the same
    length, need only their lengths set right: what stands behind a text's end is never looked at, and its
    next tokens are written over it.

    Attributes:
        params: the parameters that it was made with; with others it means nothing.
        k, v: `[n_layer, n_batch, n_head, room, d_head]`.
        lengths: how many positions of each text are filled, `[n_batch]`. Lower one to forget the last ones.
    """

    def __init__(self, params: Params, n_head: int, n_batch: int = 1, room: int | None = None) -> None:
        """An empty past with room for `room` tokens of each text: n_ctx, which is the most, by default."""
        self.params = params
        n_ctx, n_embd = params.wpe.shape
        shape = (len(params.h), n_batch, n_head, n_ctx if room is None else min(room, n_ctx), n_embd // n_head)
        # No garbage: even with a weight of 0, NaN would be seen. And np.zeros takes memory only as it is written to.
        self.k = np.zeros(shape, params.wpe.dtype, like=params.wpe)
        self.v = np.zeros(shape, params.wpe.dtype, like=params.wpe)
        self.lengths = np.zeros(n_batch, int)

    @property
    def room(self) -> int:
        """How many tokens of each text it can hold."""
        return self.k.shape[3]

    def positions(self, n_seq: int) -> Array:
        """Where the next n_seq tokens of each text stand, `[n_batch, n_seq]`."""
        return self.lengths[:, None] + np.arange(n_seq)

    def layers(self, positions: Array) -> Iterator[LayerPast]:
        """The part of each block, for new tokens at these positions: views of `k` and `v`."""
        # As many keys as the longest text has; behind the end of a shorter one, the mask hides what is there.
        mask = causal_mask(np.asarray(positions, like=self.k), n_key=int(positions.max()) + 1)[:, None]
        new = self._index(positions)
        for k, v in zip(self.k, self.v, strict=True):
            yield LayerPast(k, v, new, mask)

    def _index(self, positions: Array) -> Index:
        """The index of these positions of each text, `[n_batch, n_seq]`, in all heads of one block's keys or values."""
        first = positions[0]
        if (positions == first).all():  # texts of one length: a slice, which is filled much faster
            return slice(None), slice(None), slice(first[0], first[-1] + 1)
        n_batch, n_head = self.k.shape[1:3]
        # [n_batch, 1, 1], [n_head, 1] and [n_batch, 1, n_seq]: together, an index for each text, head and position.
        texts, heads = np.arange(n_batch, like=self.k), np.arange(n_head, like=self.k)
        return texts[:, None, None], heads[:, None], np.asarray(positions, like=self.k)[:, None]

    def row(self, i: int) -> Past:
        """The past of text i alone: a view, so that what is read with it is in the whole as well."""
        view = copy.copy(self)
        view.k, view.v, view.lengths = self.k[:, i : i + 1], self.v[:, i : i + 1], self.lengths[i : i + 1]
        return view

    def select(self, rows: Sequence[int]) -> Past:
        """A copy with only these texts, in this order; one that is named several times is in it as often."""
        n_head = self.k.shape[2]
        chosen = Past(self.params, n_head, len(rows), self.room)
        chosen.lengths[:] = self.lengths[rows]
        n_key = max(chosen.lengths)
        for ours, theirs in zip([*self.k, *self.v], [*chosen.k, *chosen.v], strict=True):  # of one block at a time
            theirs[:, :, :n_key] = ours[rows, :, :n_key]
        return chosen


def embed(ids: Array, params: Params, positions: Array, token_type_ids: Array | None = None) -> Array:
    """Gives each token the sum of two vectors: one for the token and one for its position.

    embed(ids)_i = wte[ids_i] + wpe[positions_i]

    But for the mask, attention knows nothing of order: where a token stands has to be in its vector.

    Fine-tuned models may add a third: that of a token whose id says what kind of text the token is in,
    such as who speaks.

    Shapes: ids and token_type_ids `[n_batch, n_seq]`, positions `[n_batch, n_seq]` or `[n_seq]`, to
    `[n_batch, n_seq, n_embd]`.
    Source: Vaswani et al. 2017, section 3.5 (there the positions' vectors are not learned); for the
    third, Wolf et al. 2019, "TransferTransfo", section 3.
    """
    x = params.wte[ids] + params.wpe[positions]
    return x if token_type_ids is None else x + params.wte[token_type_ids]


def hidden_states(
    ids: Array, params: Params, n_head: int, past: Past | None = None, token_type_ids: Array | None = None
) -> Iterator[Array]:
    """What enters each block, one after the other; and last, what leaves the stack, normalised.

    With a past, ids continue the texts that it holds; after the last of these states it holds them as well.

    Shapes: `[n_batch, n_seq]` to n_layer + 1 times `[n_batch, n_seq, n_embd]`.
    Source: Radford et al. 2019, section 2.3.
    """
    n_seq = ids.shape[-1]
    positions = np.arange(n_seq) if past is None else past.positions(n_seq)
    layer_pasts = itertools.repeat(None) if past is None else past.layers(positions)
    place = functools.partial(np.asarray, like=params.wte)  # to where the parameters are, if that is a GPU
    x = embed(place(ids), params, place(positions), None if token_type_ids is None else place(token_type_ids))
    for block_params, layer_past in zip(params.h, layer_pasts, strict=False):
        yield x
        x = block(x, block_params, n_head, layer_past)
    if past is not None:
        past.lengths += n_seq
    yield layer_norm(x, params.ln_f)


def transformer(
    ids: Array, params: Params, n_head: int, past: Past | None = None, token_type_ids: Array | None = None
) -> Array:
    """Everything before the output head, the last of the hidden states: what the next token is scored with.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    """
    for x in hidden_states(ids, params, n_head, past, token_type_ids):  # noqa: B007  only the last is wanted
        pass
    return x


def read(ids: Array, params: Params, n_head: int, past: Past) -> Array:
    """Like `transformer`, but reads PIECE tokens at a time, those of all texts together.

    Attention makes a number for each token that is read and each before it, in each head and text. Of a
    long text all at once, these would take much memory, and half of them would be masked away.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    """
    n_batch, n_seq = ids.shape
    piece = max(1, PIECE // n_batch)
    pieces = np.split(ids, range(piece, n_seq, piece), axis=1)
    return np.concatenate([transformer(piece, params, n_head, past) for piece in pieces], axis=1)


def output_head(x: Array, params: Params) -> Array:
    """The logits: the dot product of each vector with each token's embedding.

    output_head(x) = x wte^T

    The same matrix embeds the tokens and scores them ("tied" weights).

    Shapes: `[..., n_embd]` to `[..., n_vocab]`.
    Source: Vaswani et al. 2017, section 3.4.
    """
    rows = x.reshape(-1, x.shape[-1])  # of all texts: wte is to be read once, not once for each
    if not 1 < len(rows) <= FEW_VECTORS:
        logits = rows @ params.wte.T
    else:  # the same, transposed, and part by part: OpenBLAS takes a third to half less time
        logits = np.empty((len(rows), len(params.wte)), np.result_type(x, params.wte), like=x)
        for i in range(0, len(params.wte), PART):
            logits[:, i : i + PART] = (params.wte[i : i + PART] @ rows.T).T
    return logits.reshape(*x.shape[:-1], len(params.wte))


def logits(
    ids: Array, params: Params, n_head: int, past: Past | None = None, token_type_ids: Array | None = None
) -> Array:
    """The whole model. The softmax of row i is the probability of each token to come right after `ids_i`.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_vocab]`.
    """
    return output_head(transformer(ids, params, n_head, past, token_type_ids), params)


def check_ids(ids: npt.ArrayLike, hparams: HParams) -> Array:
    """Checks token ids from outside, and returns them with the batch axis that the model wants.

    Shapes: `[n_seq]` or `[n_batch, n_seq]` to `[n_batch, n_seq]`.

    Raises:
        ValueError: ids are empty, of rows of different lengths, not whole numbers, or outside the vocabulary.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ValueError("token ids must be one row of numbers, or several rows of the same length") from error
    if array.size == 0:
        raise ValueError("there are no token ids to read: give at least one")
    if array.dtype.kind == "U":
        raise ValueError("token ids are wanted, and this is text: the tokenizer's encode makes ids of it")
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
    return np.atleast_2d(array)


def check_fits(ids: Array, hparams: HParams, past: Past | None = None) -> None:
    """Checks that the context holds token ids, `[n_batch, n_seq]`, and that they continue the texts of a past.

    Raises:
        ValueError: they are too many for the context, or of another batch size than the past.
    """
    n_batch, n_seq = ids.shape
    if past is not None and len(past.lengths) != n_batch:
        raise ValueError(
            f"the past was made for a batch of {len(past.lengths)}, but the token ids are a batch of {n_batch}"
        )
    n_past = 0 if past is None else max(past.lengths)
    room = hparams.n_ctx if past is None else past.room
    if n_past + n_seq > room:
        read = f" ({n_past} of them read before)" if n_past else ""
        whose = f"model, whose context holds {room}" if room == hparams.n_ctx else f"past, which has room for {room}"
        raise ValueError(f"{n_past + n_seq} tokens{read} are too many for this {whose}")


def check_indices(
    name: str, values: npt.ArrayLike, shape: tuple[int, ...], n: int, ignored: int | None = None
) -> Array:
    """Checks what stands beside token ids: whole numbers, 0 to n - 1 or `ignored`, in this shape.

    Raises:
        ValueError: they are not.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(
            f"{name} must be whole numbers in the shape {list(shape)}, in rows of the same length"
        ) from None
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        is_now = f"{array.dtype} in the shape {list(array.shape)}"
        raise ValueError(f"{name} must be whole numbers in the shape {list(shape)}, not {is_now}")
    outside = array[(array != ignored) & ((array < 0) | (array >= n))]
    if outside.size:
        also = "" if ignored is None else f", or {ignored} for one that does not count"
        raise ValueError(f"{name} holds {outside[0]}; it must hold numbers from 0 to {n - 1}{also}")
    return array
