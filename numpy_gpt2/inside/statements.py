"""What the statements of a function do to its variables, read from its source: `watcher.py` follows them.

A variable may be changed in part after it has got its value, as by `scores[i] = 0` or `np.copyto(scores, ...)`, or be
returned at once. Then its value waits for its name.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import NamedTuple


class Wait(NamedTuple):
    """How long a variable's new value waits for its name."""

    line: int  # the last one of the statement that gives it the value,
    last_line: int  # and of the last statement that changes it in part
    is_returned: bool  # right after that, in which case it waits for the return

    def goes_on(self, line: int) -> bool:
        """Whether the value still waits when this line begins."""
        return self.line < line and (self.is_returned or line <= self.last_line)  # a loop does not wait


class Statement(NamedTuple):
    """A statement in a function that gives variables a value, changes them, or returns."""

    line: int
    variables: Mapping[str, Wait]  # those that get a value
    changed: frozenset[str]  # those that get a value in part: `logits[:, i] = ...`, `np.copyto(logits, ...)`
    called: str | None  # the function, if what it returns is the value


def statements(code: CodeType) -> Mapping[int, Statement]:
    """The statements of a function, by line. A statement of several lines is listed for each of them."""
    # Some versions of Python take code for equal that differs only in its lines.
    return read_statements(code, code.co_filename, code.co_linetable)


@functools.lru_cache(256)
def read_statements(code: CodeType, file: str, lines_of_code: bytes) -> Mapping[int, Statement]:
    """Reads the statements of a function, once."""
    try:
        lines, first = inspect.getsourcelines(code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):  # made at run time: nothing is known about it
        return {}
    ast.increment_lineno(tree, first - 1)
    found: dict[int, Statement] = {}
    for node, following in nested_statements(tree, []):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return)):
            found.update(dict.fromkeys(range(node.lineno, last_line(node) + 1), read_statement(node, following)))
    return found


def nested_statements(node: ast.AST, following: list[ast.stmt]) -> Iterator[tuple[ast.stmt, list[ast.stmt]]]:
    """The statements inside a statement, each with those that follow it, also where its branch or loop has ended."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, field, [])
        for i, each in enumerate(inner if isinstance(inner, list) else []):  # the body of a lambda is an expression
            if isinstance(each, ast.stmt):
                after = [*inner[i + 1 :], *following]
                yield each, after
                yield from nested_statements(each, after)
            else:  # what follows an exception handler is not the next one
                yield from nested_statements(each, following)


def read_statement(
    node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr | ast.Return, following: list[ast.stmt]
) -> Statement:
    """A statement, given those that follow it."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    variables = [variable for target in targets if target for variable in assigned(target)]
    waits = {variable: wait_for(variable, node, following) for variable in variables}
    call = None if isinstance(node, (ast.Expr, ast.AugAssign)) else node.value
    called = ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else None
    return Statement(node.lineno, waits, frozenset(changed_in_part(node)), called)


def wait_for(variable: str, node: ast.stmt, following: list[ast.stmt]) -> Wait:
    """How long a variable waits for its name after this statement."""
    last, after = node, following
    for i, each in enumerate(following):
        if variable in assigned(each):
            break
        if variable in changed_in_part(each):
            last, after = each, following[i + 1 :]
    returned = after[0].value if after and isinstance(after[0], ast.Return) else None
    is_returned = isinstance(returned, ast.Name) and returned.id == variable
    return Wait(last_line(node), last_line(last), is_returned)


def assigned(node: ast.AST) -> list[str]:
    """The variables that get a value anywhere in a statement, or in the target of an assignment."""
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def changed_in_part(node: ast.stmt) -> set[str]:
    """The variables that get a value in part anywhere in a statement, or as the `out` of a function."""
    changed: set[str] = set()
    for each in ast.walk(node):
        targets: list[ast.expr] = []
        if isinstance(each, ast.Subscript) and isinstance(each.ctx, ast.Store):
            targets = [each.value]
        elif isinstance(each, ast.Call):
            targets = [option.value for option in each.keywords if option.arg in ("out", "dst")]
            targets += each.args[:1] if ast.unparse(each.func) == "np.copyto" else []
        changed |= {target.id for target in targets if isinstance(target, ast.Name)}
    return changed


def last_line(node: ast.stmt) -> int:
    """The number of a statement's last line."""
    return node.end_lineno or node.lineno
