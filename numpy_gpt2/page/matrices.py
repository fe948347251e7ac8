"""Pictures of arrays, as plain data: a byte for each cell, which a canvas can show."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from ..params import Array


def picture(array: Array, n_most: int) -> dict[str, Any]:
    """A picture of an array: `[rows, columns]`.

    Byte 0 stands for minus infinity, and byte b from 1 on for `low + (b - 1) / 254 * (high - low)`. If there are
    negative numbers, then 0 is in the middle of the scale, at byte 128.

    Args:
        array: numbers, or truth values.
        n_most: how many rows and columns the picture may have: `thinned` says what becomes of others.

    Returns:
        `rows` and `columns` of the picture; `bytes`, row by row, in base64; the scale, from `low` to `high`, and
        whether it `is_signed`; and `step`, how many rows and columns of the array one of the picture stands for.
    """
    cells, step = thinned(np.asarray(array, dtype=np.float64), n_most)
    finite = cells[np.isfinite(cells)]
    largest, is_signed = float(np.max(np.abs(finite), initial=0)), bool(np.any(finite < 0))
    low, high = (-largest if is_signed else 0.0), largest or 1.0
    scaled = 1 + np.rint((np.where(np.isfinite(cells), cells, low) - low) / (high - low) * 254)
    shades = np.where(np.isfinite(cells), scaled, 0).astype(np.uint8)
    rows, columns = cells.shape
    data = base64.b64encode(shades.tobytes()).decode()
    return {
        "rows": rows,
        "columns": columns,
        "bytes": data,
        "low": low,
        "high": high,
        "is_signed": is_signed,
        "step": step,
    }


def thinned(array: Array, n_most: int) -> tuple[Array, list[int]]:
    """At most n_most rows and columns, of which each cell has the value farthest from 0 of those that it stands for.

    Returns:
        `[rows, columns]`, and how many rows and columns of the array each of them stands for.

    >>> thinned(np.array([[1.0, -3.0, 2.0]]), 2)
    (array([[-3.,  2.]]), [1, 2])
    """
    step = [max(1, -(-n // n_most)) for n in array.shape]
    if step == [1, 1]:
        return array, step
    (i, j), (rows, columns) = step, (-(-n // each) for n, each in zip(array.shape, step, strict=True))
    padding = [(0, rows * i - array.shape[0]), (0, columns * j - array.shape[1])]
    padded = np.pad(array, padding, constant_values=-np.inf).reshape(rows, i, columns, j)
    groups = np.swapaxes(padded, 1, 2).reshape(rows, columns, i * j)
    farthest = np.argmax(np.where(np.isfinite(groups), np.abs(groups), -1), axis=-1)
    return np.take_along_axis(groups, farthest[..., None], axis=-1)[..., 0], step
