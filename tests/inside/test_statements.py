"""What is read from the source of a function."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_gpt2 import layers
from numpy_gpt2.inside.statements import Statement, Wait, statements
from numpy_gpt2.params import Array


def read(function: Callable[..., Any]) -> dict[str, Statement]:
    """The statements of a function, by their first line."""
    lines, first = inspect.getsourcelines(function)
    found = statements(function.__code__)
    return {lines[number - first].strip(): found[number] for number in found if found[number].line == number}


def test_the_statements_of_softmax() -> None:
    found = read(layers.softmax)
    first = layers.softmax.__code__.co_firstlineno
    last = first + len(inspect.getsourcelines(layers.softmax)[0]) - 1
    assert [(each.line - first, [*each.variables]) for each in found.values()][1:] == [
        (last - first - 2, ["e"]),
        (last - first - 1, ["e"]),
        (last - first, []),
    ]
    e = [*found.values()]
    assert e[1].variables["e"] == Wait(last - 2, last - 2, is_returned=False)  # until it gets another value
    assert e[2].variables["e"] == Wait(last - 1, last - 1, is_returned=True)


def in_part_in_a_branch(x: Array) -> Array:
    if x.ndim == 3:
        hidden = layers.gelu(x)
        if x.ndim > 2:
            hidden[..., 3] = 0
    else:
        hidden = x
    if x.ndim > 1:
        hidden[..., 4] = 0
    return hidden * 2


def test_how_long_a_variable_waits() -> None:
    found = read(in_part_in_a_branch)
    (hidden,) = (each.variables["hidden"] for line, each in found.items() if line.startswith("hidden = layers.gelu"))
    first = in_part_in_a_branch.__code__.co_firstlineno
    assert hidden == Wait(first + 2, first + 8, is_returned=False)
    assert [hidden.goes_on(first + i) for i in (1, 2, 3, 8, 9)] == [False, False, True, True, False]


def test_what_a_statement_changes_and_calls() -> None:
    def function(x: Any, y: Any, params: Any) -> Any:
        x = layers.gelu(x)
        x, (y, *z) = np.split(x, 3)
        x[0], y.attribute, z[1][2] = y, 1, 2
        np.copyto(x, y)
        np.copyto(dst=y, src=x)
        np.copyto(*z)
        other: Any = [2 * i for i in x]
        assert other
        return layers.linear(x, params)

    found = [*read(function).values()]
    assert [[*each.variables] for each in found] == [["x"], ["x", "y", "z"], [], [], [], [], ["other"], []]
    assert [{*each.changed} for each in found] == [set(), set(), {"x"}, {"x"}, {"y"}, set(), set(), set()]
    assert [each.called for each in found] == ["gelu", "split", None, None, None, None, None, "linear"]


def test_a_function_whose_lines_are_broken_otherwise() -> None:
    """Some versions of Python take the code of both for equal."""
    source = "def f(x):\n    y = x * 2{}\n    return y\n"
    codes = []
    for i, more in enumerate(["", "\n"]):
        text, file = source.format(more), f"<cell {i}>"
        made: dict[str, Any] = {}
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
        exec(compile(text, file, "exec"), made)
        codes.append(made["f"].__code__)
    assert [[*statements(code)] for code in codes] == [[2, 3], [2, 4]]
