"""The past: the keys and values of the tokens read so far (the key/value cache).

Keys and values belong to attention, in `layers.py`; on a first reading, this file can wait. The key and the value of
a token depend on that token and the ones before it, never on what follows. So each is computed once and kept, and a
text can be continued without reading it again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .params import Array, Params


class LayerPast(NamedTuple):
    """The part of a `Past` that belongs to one block, ready for n_seq new tokens of each text."""

    k: Array  # keys, [n_batch, n_head, capacity, d_head]
    v: Array  # values, the same shape
    new: Any  # index of the new tokens: k[new] is [n_batch, n_head, n_seq, d_head]
    positions: Array  # of the new tokens, [n_batch, 1, n_seq]: the axis of length 1 stands for the heads
    n_key: int  # tokens of the longest text, the new ones included

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Stores the keys and values of the new tokens, and returns those of all tokens.

        Shapes: twice `[n_batch, n_head, n_seq, d_head]` to twice `[n_batch, n_head, n_key, d_head]`.
        """
        self.k[self.new] = k
        self.v[self.new] = v
        return self.k[:, :, : self.n_key], self.v[:, :, : self.n_key]


class Past:
    """The keys and values of the tokens read so far, for every block and each text of a batch.

    The texts may have different lengths. Texts that were read together, padded on the right, need only their
    lengths corrected: whatever lies beyond the end of a text is masked, and the next tokens overwrite it.

    Attributes:
        params: the parameters that computed the keys and values; with other parameters they mean nothing.
        k, v: `[n_layer, n_batch, n_head, capacity, d_head]`.
        lengths: how many tokens of each text are stored, `[n_batch]`. Lower one to forget the last tokens.
    """

    def __init__(self, params: Params, n_head: int, n_batch: int = 1, capacity: int | None = None) -> None:
        """An empty past that can hold `capacity` tokens of each text: by default n_ctx, which is the most."""
        self.params = params
        n_ctx, n_embd = params.wpe.shape
        capacity = n_ctx if capacity is None else min(capacity, n_ctx)
        shape = (len(params.h), n_batch, n_head, capacity, n_embd // n_head)
        # Not np.empty: even with an attention weight of 0, a NaN would spread. np.zeros costs memory only when written.
        self.k = np.zeros(shape, params.wpe.dtype, like=params.wpe)
        self.v = np.zeros(shape, params.wpe.dtype, like=params.wpe)
        self.lengths = np.zeros(n_batch, int)

    @property
    def capacity(self) -> int:
        """How many tokens of each text the past can hold."""
        return self.k.shape[3]

    def positions(self, n_seq: int) -> Array:
        """The positions of the next n_seq tokens of each text, `[n_batch, n_seq]`."""
        return np.asarray(self.lengths[:, None] + np.arange(n_seq), like=self.k)

    def layers(self, n_seq: int) -> list[LayerPast]:
        """The part of each block, for n_seq new tokens of each text; views of `k` and `v`.

        All blocks of a pass start from the same lengths. `model.transformer` advances the lengths at its end,
        so a pass that is interrupted leaves the past as it was.
        """
        n_key = int(max(self.lengths)) + n_seq
        new, positions = self._index(n_seq), self.positions(n_seq)[:, None]
        return [LayerPast(k, v, new, positions, n_key) for k, v in zip(self.k, self.v, strict=True)]

    def _index(self, n_seq: int) -> Any:
        """The index of the next n_seq tokens of each text in the keys or values of a block."""
        first = self.lengths[0]
        if (self.lengths == first).all():  # a slice is much faster than arrays of indices
            return slice(None), slice(None), slice(first, first + n_seq)
        n_batch, n_head = self.k.shape[1:3]
        texts, heads = np.arange(n_batch, like=self.k), np.arange(n_head, like=self.k)
        # [n_batch, 1, 1], [n_head, 1] and [n_batch, 1, n_seq] broadcast to an index for each text, head and token
        return texts[:, None, None], heads[:, None], self.positions(n_seq)[:, None]

    def row(self, i: int) -> Past:
        """The past of text i alone, as a view: tokens added to it are added to this past, too."""
        view = copy.copy(self)
        view.k, view.v, view.lengths = self.k[:, i : i + 1], self.v[:, i : i + 1], self.lengths[i : i + 1]
        return view

    def select(self, rows: Sequence[int]) -> Past:
        """A copy that holds these texts, in this order. A text may be named several times."""
        chosen = Past(self.params, self.k.shape[2], len(rows), self.capacity)
        chosen.lengths[:] = self.lengths[rows]
        n_key = max(chosen.lengths)
        # block by block: indexing all blocks at once would make another copy of everything
        for old, new in zip([*self.k, *self.v], [*chosen.k, *chosen.v], strict=True):
            new[:, :, :n_key] = old[rows, :, :n_key]
        return chosen
