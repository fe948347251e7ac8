"""What the page is told about an array: its axes, some numbers, and a picture of a byte for each cell."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from .. import checks
from ..params import Array
from .reading import Line

Head: TypeAlias = int | Literal["mean", "max"] | None

STREAM = "[n_batch, n_seq, n_embd]"
AXES = {  # of what has other axes than the residual stream
    "positions": "[n_seq]",
    "centred": STREAM,
    "variance": "[n_batch, n_seq, 1]",
    "attn/c_attn": "[n_batch, n_seq, 3 * n_embd]",
    "attn/qkv": "[n_batch, 3 * n_head, n_seq, d_head]",
    **dict.fromkeys(["attn/q", "attn/k", "attn/v", "attn/a"], "[n_batch, n_head, n_seq, d_head]"),
    "attn/mask": "[n_seq, n_key]",
    **dict.fromkeys(["attn/scores", "attn/e", "attn/weights"], "[n_batch, n_head, n_seq, n_key]"),
    **dict.fromkeys(["mlp/c_fc", "mlp/hidden"], "[n_batch, n_seq, 4 * n_embd]"),
    "logits": "[n_batch, n_seq, n_vocab]",
}


def axes(name: str, shape: Sequence[int]) -> str:
    """The axes of an array, as `layers.py` writes them; empty if it has others, in a model that somebody has changed.

    >>> axes("h3/attn/weights", (1, 4, 5, 5)), axes("h3", (1, 5, 256))
    ('[n_batch, n_head, n_seq, n_key]', '[n_batch, n_seq, n_embd]')
    """
    inside = re.sub(r"^h\d+/", "", name)
    found = AXES.get(inside) or AXES.get(inside.rpartition("/")[2]) or STREAM
    return found if found.count(",") + 1 == len(shape) else ""


def of_head(name: str, array: Array, head: Head) -> Array:
    """The rows and columns of an array of one text: those of a head, or the mean or the maximum of all heads.

    Shapes: `[n]`, `[rows, columns]`, `[1, rows, columns]` or `[1, n_head, rows, columns]` to `[rows, columns]`.

    Raises:
        ValueError: there is no such head, or the array has none.
    """
    if array.ndim < 4:
        if head is not None:
            raise ValueError(f"{name} has no axis of heads")
        return array.reshape(-1, array.shape[-1])
    if head == "mean":
        return np.asarray(array[0].mean(axis=0))
    if head == "max":
        return np.asarray(array[0].max(axis=0))
    n_head = array.shape[1]
    if head is None:
        raise ValueError(f"{name} has {n_head} heads: choose one")
    return np.asarray(array[0][checks.check_whole_number("head", head, at_most=n_head - 1)])


def statistics(array: Array) -> Line:
    """The least, the greatest and the mean of the finite numbers of an array, and how many others there are.

    `n_infinite` counts minus infinity, the score of what is masked, and `n_other` all else that is not finite.
    """
    is_finite = np.isfinite(array)
    finite = array if is_finite.all() else array[is_finite]
    n_infinite = int(np.count_nonzero(array == -np.inf))
    counts = {"n_infinite": n_infinite, "n_other": array.size - finite.size - n_infinite}
    if not finite.size:
        return {"low": None, "high": None, "mean": None, **counts}
    return {
        "low": float(finite.min()),
        "high": float(finite.max()),
        "mean": float(finite.mean(dtype=np.float64)),
        **counts,
    }


def picture(array: Array, n_most: int) -> Line:
    """A picture of an array: `[rows, columns]`.

    Byte 0 stands for what is not finite, such as a masked score, and byte b from 1 on for
    `low + (b - 1) / 254 * (high - low)`. If there are negative numbers, then 0 is in the middle of the scale, at byte
    128.

    Args:
        array: numbers, or truth values.
        n_most: how many rows and columns the picture may have: `thinned` says what becomes of others.

    Returns:
        `rows` and `columns` of the picture; `bytes`, row by row, in base64; the scale, from `low` to `high`, and
        whether it `is_signed`; and `step`, how many rows and columns of the array one of the picture stands for.
    """
    cells, step = thinned(array, n_most)
    cells = cells.astype(np.float64)
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
    finite = np.isfinite(array)
    values = np.where(finite, array, 0)
    highest, lowest = grouped(np.maximum, values, step), grouped(np.minimum, values, step)
    farthest = np.where(highest >= -lowest, highest, lowest)
    return np.where(grouped(np.logical_or, finite, step), farthest, -np.inf), step


def grouped(function: np.ufunc, array: Array, step: Sequence[int]) -> Array:
    """Reduces groups of rows and columns to one of each: `[n, m]` to `[ceil(n / step[0]), ceil(m / step[1])]`."""
    for axis in (1, 0):
        array = function.reduceat(array, np.arange(0, array.shape[axis], step[axis]), axis=axis)
    return array


def relative_distance(before: Array, after: Array) -> float | None:
    """The length of the difference of two arrays as a share of the length of the first; None if that is 0.

    What is not finite in one of them, such as a masked score, does not count.
    """
    finite = np.isfinite(before) & np.isfinite(after)
    a, b = (array[finite].astype(np.float64) for array in (before, after))
    length = float(np.linalg.norm(a))
    return float(np.linalg.norm(b - a)) / length if length else None
