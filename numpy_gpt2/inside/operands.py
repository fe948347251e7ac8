"""Where the numbers of a calculation come from: arrays in a trace, parameters and token ids."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from dataclasses import dataclass

import numpy as np

from ..machine.backend import to_host
from ..params import Array
from .recorder import Trace

STREAM = "the residual stream before the block"  # stands for its name, which depends on the block
ALL = slice(None)
ROUNDING = 10  # machine epsilons: how far a result may be off, as a share of the numbers that it is the sum of


@dataclass(frozen=True)
class Number:
    """A number in a calculation: an operand, which has a name and an index, or the result of a step."""

    text: str  # what it is, in the variables of the line
    value: float
    name: str = ""  # of an operand: a name in the trace, that of a parameter, or ids or token_type_ids
    index: tuple[int, ...] = ()
    terms: tuple[Term, ...] = ()  # of a sum, in order


@dataclass(frozen=True)
class Term:
    """A term of a sum: the product of its factors, if there are several."""

    factors: tuple[Number, ...]
    value: float


class Entry:
    """The entry that is explained, and how its operands are found.

    Attributes:
        name: that of its array, without the step.
        index: its own.
        shape: that of its array.
        block: `h3`, say; empty outside of the blocks.
    """

    def __init__(self, trace: Trace, name: str, index: tuple[int, ...]) -> None:
        self.trace, self.index, self.array = trace, index, trace[name]
        self.shape = self.array.shape
        self.step, self.name, self.block = re.findall(r"^(step\d+/|)((h\d+|).*)", name)[0]

    def is_recorded(self, result: float, size: float) -> bool:
        """Whether a result is what was recorded, up to rounding, which goes by the size of the numbers in a sum."""
        value = float(self.array[self.index])
        tolerance = ROUNDING * size * float(np.finfo(self.array.dtype).eps) if self.array.dtype.kind == "f" else 0
        both_nan = math.isnan(value) and math.isnan(result)
        return value == result or both_nan or abs(value - result) <= tolerance < math.inf

    def require(self, *operands: str) -> list[str]:
        """The names of operands in the trace: in block 3, `h3/attn/q` for `h/attn/q`.

        Raises:
            KeyError: one of them was not recorded.
        """
        names = [self.stream() if name == STREAM else re.sub("^h/", f"{self.block}/", name) for name in operands]
        missing = [self.step + name for name in names if self.step + name not in self.trace]
        if missing:
            them = "it" if len(missing) == 1 else "them"
            raise KeyError(f"explain needs {' and '.join(missing)}: record {them} as well")
        return [self.step + name for name in names]

    def stream(self) -> str:
        """The name of the residual stream as it enters this block or, outside of the blocks, the last layer norm."""
        n_before = int(self.block[1:]) if self.block else self.count_blocks()
        has_types = self.trace.token_type_ids is not None or f"{self.step}x_2" in self.trace
        return f"h{n_before - 1}" if n_before else "x_2" if has_types else "x"

    def count_blocks(self) -> int:
        """How many blocks the model has."""
        self.trace.parameter("ln_f/g")  # says so if the model is gone
        with contextlib.suppress(KeyError):
            for n in itertools.count():
                self.trace.parameter(f"h{n}/ln_1/g")
        return n

    def read(self, text: str, name: str, *index: int | slice) -> list[Number]:
        """Operands from the trace: those along each axis whose index is `ALL`."""
        return numbers_of(text, name, self.trace[name], index)

    def parameter(self, name: str, *index: int | slice) -> list[Number]:
        """Parameters, likewise, by their name in the checkpoint."""
        return numbers_of(name.rpartition("/")[2], name, self.trace.parameter(name), index)

    def id(self, text: str, name: str, ids: Array | None) -> Number:
        """The id, or the type, of the token to which the entry belongs.

        Raises:
            KeyError: it is not known.
        """
        if ids is None:
            raise KeyError(f"explain needs {name}, which are not known: with several steps, a trace does not keep them")
        return numbers_of(text, name, ids, self.index[:2])[0]

    def position(self, i: int) -> Number:
        """The position of token i in the text to which the entry belongs."""
        (positions,) = self.require("positions")
        index = (i,) if self.trace[positions].ndim == 1 else (self.index[0], i)  # without a past, the same for all
        return self.read("position", positions, *index)[0]

    def row(self, name: str, key: int, n_key: int) -> int:
        """The row of a key or a value, which are recorded from the first new position on.

        Raises:
            ValueError: it was not recorded.
        """
        n_new = self.trace[name].shape[2]
        row = key if n_new == n_key else key - int(self.position(0).value)
        if row < 0:
            raise ValueError(f"explain needs {name} at position {key}: record its pass as well, and not by steps")
        return row


def numbers_of(text: str, name: str, array: Array, index: tuple[int | slice, ...]) -> list[Number]:
    """Numbers of an array, with their places in it: those along each axis whose index is `ALL`.

    Raises:
        ValueError: the array does not have the shape that it has in GPT-2.
    """
    try:
        axes = [range(n) if isinstance(i, slice) else [i] for i, n in zip(index, array.shape, strict=True)]
        values = to_host(array[(*index, None)]).ravel().tolist()
    except (IndexError, ValueError):
        shape = list(array.shape)
        raise ValueError(f"{name} has the shape {shape}, which explain does not expect: other code made it") from None
    return [Number(text, value, name, place) for value, place in zip(values, itertools.product(*axes), strict=True)]
