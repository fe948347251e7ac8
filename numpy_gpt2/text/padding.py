"""Texts of different lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Batch(NamedTuple):
    """Texts as token ids, padded on the right to the length of the longest."""

    ids: npt.NDArray[np.int64]  # [n_batch, n_seq]
    lengths: npt.NDArray[np.int64]  # of each text without padding, [n_batch]
    mask: npt.NDArray[np.bool_]  # True for a token of the text, False for padding, [n_batch, n_seq]


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """Rows of ids as one array; shorter rows are filled up with the id `pad`.

    Shapes: rows of any lengths to `[n_batch, n_seq]`, where n_seq is the greatest length.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.full(mask.shape, pad, np.int64)
    ids[mask] = [id for row in rows for id in row]
    return Batch(ids, lengths, mask)
