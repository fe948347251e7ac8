"""Reads a piece of a prompt only for its keys and values, as far as nothing else of it is needed.

Of a prompt, what leaves the last block is needed at the last token alone: from it, the next one is predicted. Of the
other tokens, the keys and values of the last block are needed. So the pass over a piece without a last token ends when
they are stored.
"""

from __future__ import annotations

import numpy as np

from .. import model
from ..cache import LayerPast, Past
from ..params import Array, Params


class StoredError(BaseException):  # not an Exception, which a changed layer may catch
    """The keys and values of the last block are stored."""


class FillingPast(Past):
    """A view of a past, for a pass of which nothing is needed but keys and values.

    Attributes:
        n_stored: how often the pass has stored keys and values.
        is_in_order: whether that was once in each block so far. A changed block may do something else.
    """

    def __init__(self, past: Past) -> None:
        self.params, self.k, self.v, self.lengths = past.params, past.k, past.v, past.lengths
        self.n_stored, self.is_in_order = 0, True
        self._past = past

    def layers(self, n_seq: int) -> list[LayerPast]:
        """The part of each block."""
        parts = []
        for number, layer_past in enumerate(self._past.layers(n_seq)):
            part = FillingLayerPast(*layer_past)
            part.past, part.layer_past, part.number = self, layer_past, number
            parts.append(part)
        return [*parts]


class FillingLayerPast(LayerPast):
    """The part of one block."""

    past: FillingPast
    layer_past: LayerPast
    number: int  # of the block

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Stores the keys and values of the new tokens.

        Raises:
            StoredError: those of the last block are stored, which ends the pass.
        """
        appended = self.layer_past.append(k, v)
        self.past.is_in_order &= self.past.n_stored == self.number
        self.past.n_stored += 1
        if self.past.is_in_order and self.past.n_stored == len(self.past.params.h):
            raise StoredError
        return appended


def fill(x: Array, params: Params, n_head: int, past: Past) -> None:
    """Like `model.transformer`, but only adds the tokens to the past."""
    n_seq = x.shape[1]
    try:
        model.transformer(x, params, n_head, FillingPast(past))
    except StoredError:
        past.lengths += n_seq


def read_ends(x: Array, params: Params, n_head: int, past: Past, ends: Array) -> dict[int, Array]:
    """Like `model.transformer`, for a piece of texts of which only the last token matters.

    Args:
        x, params, n_head, past: as for `model.transformer`. All texts have the same length so far.
        ends: the positions of the last tokens, `[n_batch]`.

    Returns:
        The vectors, `[n_embd]`, of the texts that end in this piece, by their number.
    """
    places = ends - past.lengths
    ended = np.flatnonzero((places >= 0) & (places < x.shape[1])).tolist()
    if not ended:
        fill(x, params, n_head, past)
        return {}
    x = model.transformer(x, params, n_head, past)
    return {i: x[i, int(places[i])] for i in ended}
