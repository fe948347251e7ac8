"""The code of a function, to be shown."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable


def source(function: Callable[..., object]) -> str:
    """The code of a function as it is in its file, without the docstring.

    >>> print(source(source).splitlines()[0])
    def source(function: Callable[..., object]) -> str:
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)
