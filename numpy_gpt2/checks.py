"""Checks of what comes from outside: hyperparameters, token ids, and other numbers.

The mathematics trusts its arguments. Whoever takes them from a user checks them here first.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .cache import Past
from .params import Array, HParams


def check_hparams(hparams: HParams) -> None:
    """Checks that a model can be built with these hyperparameters.

    Raises:
        ValueError: one of them is not a positive whole number, or n_head does not divide n_embd.
    """
    for name, value in hparams._asdict().items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    if hparams.n_embd % hparams.n_head:
        raise ValueError(
            f"n_embd must be a multiple of n_head, but {hparams.n_embd} is not a multiple of {hparams.n_head}"
        )


def float_dtype(dtype: npt.DTypeLike, names: Sequence[str] = ("float32", "float64")) -> np.dtype[Any]:
    """The dtype that parameters are to have.

    Args:
        dtype: the dtype, or its name.
        names: those that it may have.

    Raises:
        ValueError: it is another one.
    """
    for known in map(np.dtype, names):
        if dtype is not None and dtype in (known, known.name):  # to NumPy, None means float64
            return known
    raise ValueError(f"dtype must be {', '.join(names[:-1])} or {names[-1]}, not {dtype!r}")


def check_ids(ids: npt.ArrayLike, hparams: HParams) -> Array:
    """Checks token ids, and returns them with the batch axis that the model expects.

    Shapes: `[n_seq]` or `[n_batch, n_seq]` to `[n_batch, n_seq]`.

    Raises:
        ValueError: the ids are empty, rows of different lengths, not whole numbers, or outside the vocabulary.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ValueError("token ids must be one row of numbers, or several rows of the same length") from error
    if array.size == 0:
        raise ValueError("there are no token ids to read: give at least one")
    if array.dtype.kind == "U":
        raise ValueError("this is text, not token ids: tokenizer.encode makes ids of it, or encode_batch of several")
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
    """Checks that token ids fit into the context, and that they can continue the texts of a past.

    Shapes: ids `[n_batch, n_seq]`.

    Raises:
        ValueError: there are too many ids for the context, or their batch size is not that of the past.
    """
    n_batch, n_seq = ids.shape
    if past is not None and len(past.lengths) != n_batch:
        raise ValueError(
            f"the past was made for a batch of {len(past.lengths)}, but the token ids are a batch of {n_batch}"
        )
    n_past = 0 if past is None else max(past.lengths)
    capacity = hparams.n_ctx if past is None else past.capacity
    if n_past + n_seq > capacity:
        before = f" ({n_past} of them read before)" if n_past else ""
        holder = (
            f"model, whose context holds {capacity}"
            if capacity == hparams.n_ctx
            else f"past, which has room for {capacity}"
        )
        raise ValueError(f"{n_past + n_seq} tokens{before} are too many for this {holder}")


def check_finite(values: Array) -> Array:
    """Returns logits, or hidden states, unless a parameter that is NaN or infinity has spoilt them.

    Whatever computes with a model refuses such parameters by this check; `explore params` and `explore weights` say
    where they are. The parameters themselves are not checked: that would read all of a memory-mapped file. To check the
    last position of a text is enough, since it attends to all others.

    Raises:
        ValueError: one of the values is not a finite number.
    """
    if not np.isfinite(values).all():
        raise ValueError(
            "the model's logits are not finite numbers: check its parameters for NaN and infinity (`numpy-gpt2 explore "
            "params` names them), and whatever changes what it computes, such as a patch"
        )
    return values


def check_indices(
    name: str, values: npt.ArrayLike, shape: tuple[int, ...], n: int, ignored: int | None = None
) -> Array:
    """Checks an array of whole numbers from 0 to n - 1, or `ignored`, that must have this shape.

    Raises:
        ValueError: the array has another shape, or holds something else.
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


def check_whole_number(name: str, value: int, at_least: int = 0, at_most: float = math.inf) -> int:
    """Checks a whole number, and returns it as a Python int, which cannot overflow.

    Raises:
        ValueError: the value is not a whole number, or is out of its range.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not at_least <= value <= at_most:
        in_range = f"{at_least} or more" if at_most == math.inf else f"{at_least} to {at_most}"
        raise ValueError(f"{name} must be a whole number, {in_range}, not {value!r}")
    return int(value)
