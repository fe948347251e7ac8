"""The arithmetic of one number: `explain(t, "h3/attn/scores", (0, 1, 5, 2))` says what it was computed from, and how.

`arithmetic.py` has the calculations, one for each line of the model.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .arithmetic import calculate
from .operands import Entry, Number
from .recorder import Trace

N_SHOWN = 6  # terms of a long sum in the text of an explanation: the largest


@dataclass(frozen=True, repr=False)
class Explanation:
    """Where an entry of a recorded array comes from. `dataclasses.asdict` makes it plain data, `str` a text.

    Attributes:
        name, index: which entry it is.
        value: what was recorded.
        source, file, line: the line of code.
        formula: what the line does, in its variables.
        numbers: operands and steps in the order of the calculation, which is done in float64.
        computed: the last of these numbers. Up to rounding, it is the recorded value.
        note: a sentence, if the recorded value is another one; or else empty.
    """

    name: str
    index: tuple[int, ...]
    value: float
    source: str
    file: str
    line: int
    formula: str
    numbers: tuple[Number, ...]
    computed: float
    note: str

    @property
    def operands(self) -> list[Number]:
        """All operands, those in sums included."""
        factors = (factor for number in self.numbers for term in number.terms for factor in term.factors)
        return [number for number in (*self.numbers, *factors) if number.name]

    def __str__(self) -> str:
        head = f"{self.name}{[*self.index]} = {in_digits(self.value)}"
        code = f"    {Path(self.file).name}:{self.line}  {self.source}"
        lines = in_columns([row for number in self.numbers for row in rows(number)])
        return "\n".join([head, code, f"    {self.formula}", "", *lines, *(["", self.note] if self.note else [])])

    __repr__ = __str__  # what a session shows


def explain(trace: Trace, name: str, index: int | Sequence[int]) -> Explanation:
    """The operands and the steps of one entry of a recorded array.

    Args:
        trace: what was recorded. The operands must be among it, and the model must still exist.
        name: a name of an array in the trace. With `steps=True`, token ids are not known, nor are the keys and values
            of earlier steps.
        index: the index of the entry. For a batch of one, its first number may be left out.

    Raises:
        KeyError: this array or an operand was not recorded, or the model is gone.
        IndexError: the array has no such entry.
        ValueError: the array is a learner's own, or was computed from keys and values that were not recorded.

    >>> import numpy_gpt2
    >>> gpt2 = numpy_gpt2.load("tiny")
    >>> with numpy_gpt2.trace() as t:
    ...     logits = gpt2.logits("Once upon a time")
    >>> print(explain(t, "x", (0, 3, 7)))  # doctest: +ELLIPSIS
    x[0, 3, 7] = 0.160797
        model.py:...  x = params.wte[ids] + params.wpe[positions]
        x = wte[id] + wpe[position]
    <BLANKLINE>
    id         521          ids[0, 3]
    position     3          positions[3]
    wte          0.147217   wte[521, 7]
    wpe          0.0135803  wpe[3, 7]
    wte + wpe    0.160797
    """
    array = trace[name]
    step = next(step for step in trace.steps if trace[step.name] is array)  # the name may be its second one
    each = [index] if isinstance(index, int) else index
    entry = Entry(trace, step.name, full_index(name, each, array.shape))
    formula, numbers, size = calculate(entry)
    value, computed = array[entry.index].item(), numbers[-1].value
    note = ""
    if not entry.is_recorded(computed, abs(computed) if size is None else size):
        note = (
            f"The recorded value is {in_digits(value)}, not {in_digits(computed)}: a patch has changed the array, the "
            "parameters have changed since, or other code has computed it."
        )
    return Explanation(
        name, entry.index, value, step.source, step.file, step.line, formula, tuple(numbers), computed, note
    )


def full_index(name: str, index: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index in numbers from 0 on, with that of the only text of a batch.

    Raises:
        IndexError: there is no such entry.

    >>> full_index("h0", (-1, 3), (1, 5, 10))
    (0, 4, 3)
    """
    full = tuple(map(operator.index, index))
    if len(full) == len(shape) - 1 and shape[0] == 1:
        full = (0, *full)
    if len(full) != len(shape) or not all(-n <= i < n for i, n in zip(full, shape, strict=True)):
        raise IndexError(f"{name} has the shape {list(shape)}, and no entry with the index {list(index)}")
    return tuple(i % n for i, n in zip(full, shape, strict=True))


Row = tuple[str, str, str]  # a text, a number in digits, and where that number is


def rows(number: Number) -> list[Row]:
    """The lines for a number. Above a sum stand its terms: of a long one, the largest, and all others as one."""
    if not number.terms:
        return [(number.text, in_digits(number.value), place(number))]
    shown = [*number.terms]
    if len(shown) > N_SHOWN + 2:
        shown = sorted(shown, key=lambda term: -abs(term.value))[:N_SHOWN]
    decimals = decimals_for([number.value, *(term.value for term in shown)])
    columns = [[term.factors[i] for term in shown] for i in range(len(shown[0].factors))]
    digits = [aligned([in_digits(factor.value) for factor in column]) for column in columns]
    texts = [" * ".join(each) for each in zip(*digits, strict=True)]
    if len(columns) == 1:  # the value of the term says it
        texts = [factor.text for factor in columns[0]]
    found = [
        (f"    {text}", with_decimals(term.value, decimals), " * ".join(map(place, term.factors)))
        for text, term in zip(texts, shown, strict=True)
    ]
    n_more = len(number.terms) - len(shown)
    if n_more:
        rest = round(number.value, decimals) - sum(round(term.value, decimals) for term in shown)  # as they are shown
        found.append((f"    ... {n_more} more terms that sum to", with_decimals(rest, decimals), ""))
    return [*found, (number.text, with_decimals(number.value, decimals), "")]


def place(number: Number) -> str:
    """Where an operand is found, such as `h3/attn/q[0, 1, 5, 63]`."""
    return f"{number.name}{[*number.index]}" if number.name else ""


def in_digits(value: float) -> str:
    """A number with up to six digits.

    >>> in_digits(-0.12345678), in_digits(50256), in_digits(True)
    ('-0.123457', '50256', 'True')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def with_decimals(value: float, decimals: int) -> str:
    """A number with a fixed number of decimals, and zero without a sign."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def decimals_for(values: Sequence[float]) -> int:
    """How many decimals a sum and its terms take: six digits of the largest, and up to three more for a small sum.

    >>> decimals_for([0.02, 1.5, -31.0])
    7
    """
    digits = [5 - math.floor(math.log10(abs(value))) for value in values if value and math.isfinite(value)]
    return max(0, min(digits[0], min(digits) + 3)) if digits else 0


def aligned(numbers: Sequence[str]) -> list[str]:
    """Numbers below one another by their decimal points.

    >>> aligned(["1.25", "-10", "0.5"])
    ['  1.25', '-10   ', '  0.5 ']
    """
    parts = [number.partition(".") for number in numbers]
    left = max(len(whole) for whole, _, _ in parts)
    right = max(len(point + rest) for _, point, rest in parts)
    return [whole.rjust(left) + (point + rest).ljust(right) for whole, point, rest in parts]


def in_columns(rows: list[Row]) -> list[str]:
    """Rows as lines of text.

    >>> in_columns([("x", "0.25", "h3[0, 1, 2]"), ("x + mlp", "-1.5", "")])
    ['x         0.25  h3[0, 1, 2]', 'x + mlp  -1.5']
    """
    width = max(len(text) for text, _, _ in rows)
    numbers = aligned([number for _, number, _ in rows])
    return [
        f"{text:{width}}  {number}  {where}".rstrip() for (text, _, where), number in zip(rows, numbers, strict=True)
    ]
