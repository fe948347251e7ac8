"""The code of functions, to be shown."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from typing import NamedTuple


def source(function: Callable[..., object]) -> str:
    """The code of a function as it is in its file, without the docstring.

    >>> print(source(source).splitlines()[0])
    def source(function: Callable[..., object]) -> str:
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.FunctionDef)
    first, last = docstring_lines(definition) or (1, 0)
    del lines[first - 1 : last]
    return "\n".join(lines)


class Code(NamedTuple):
    """The code of a function in a file."""

    name: str
    first: int  # the number of its first line
    lines: list[str]
    docstring: tuple[int, int] | None  # the numbers of the first line and of the last line of the docstring

    @property
    def last(self) -> int:
        """The number of its last line."""
        return self.first + len(self.lines) - 1


def functions_in(file: str) -> list[Code]:
    """The functions of a file that stand on their own, in their order.

    >>> [code.name for code in functions_in(__file__)]
    ['source', 'functions_in', 'docstring_lines']
    """
    lines = [line.rstrip("\n") for line in linecache.getlines(file)]
    found = []
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef):
            last = node.end_lineno or node.lineno
            found.append(Code(node.name, node.lineno, lines[node.lineno - 1 : last], docstring_lines(node)))
    return found


def docstring_lines(definition: ast.FunctionDef) -> tuple[int, int] | None:
    """The numbers of the first line and of the last line of a function's docstring; None if there is none."""
    if ast.get_docstring(definition) is None:
        return None
    docstring = definition.body[0]
    return docstring.lineno, docstring.end_lineno or docstring.lineno
