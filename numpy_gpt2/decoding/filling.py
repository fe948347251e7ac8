"""Reads a piece of a prompt only for its keys and values, as far as nothing else of it is needed.

Of a prompt, what leaves the last block is needed at the last token alone: from it, the next one is predicted. Of the
other tokens, the keys and values of the last block are needed. So the pass over a piece without a last token ends when
they are stored.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from .. import model
from ..cache import LayerPast, Past
from ..params import Array, Params


class StoredError(Exception):
    """The keys and values of the last block are stored."""


class LastLayerPast(LayerPast):
    """The part of the last block, where nothing is needed but keys and values."""

    layer_past: LayerPast

    def append(self, k: Array, v: Array) -> NoReturn:
        """Stores the keys and values of the new tokens, and ends the pass.

        Raises:
            StoredError: always.
        """
        self.layer_past.append(k, v)
        raise StoredError


class FillingPast(Past):
    """A view of a past, for a pass of which nothing is needed but keys and values."""

    def __init__(self, past: Past) -> None:
        self.params, self.k, self.v, self.lengths = past.params, past.k, past.v, past.lengths
        self._past = past

    def layers(self, n_seq: int) -> list[LayerPast]:
        """The part of each block."""
        *others, layer_past = self._past.layers(n_seq)
        last = LastLayerPast(*layer_past)
        last.layer_past = layer_past
        return [*others, last]


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
