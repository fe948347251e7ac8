"""Watches a pass: gives each array that the model computes a name, and shows it to whoever observes.

The functions of the model know nothing about it. Python itself can report what a function does, line by line
(`sys.settrace`, which debuggers use). The watcher listens to these reports. An array is shown as soon as its name is
known, and before it is used: so an observer may keep a copy, as `recorder.py` does, or change the array, as
`patches.py` does. Where nobody observes, nothing listens, and nothing is slower.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from .. import layers, model
from ..cache import LayerPast, Past
from ..decoding import prefill
from ..evaluation import hidden_states
from ..machine.products import product
from ..params import Array, Block, Params


class Pass(NamedTuple):
    """What is known when a pass begins."""

    params: Params
    past: Past | None  # what it continues, as it is before the pass
    n_seq: int
    ids: Array | None  # [n_batch, n_seq]; None where somebody gives vectors of their own to the blocks
    token_type_ids: Array | None  # [n_batch, n_seq]; None for a text without them


class Seen(NamedTuple):
    """An array with its name, at the moment when the name is known."""

    name: str
    array: Array  # not a copy: what the model goes on with
    file: str
    line: int  # the place that computed it
    n_head: int | None
    first_name: str | None  # if it was shown by another name before


class Observer:
    """Sees every array of each pass in the calling thread, within `observed_by`."""

    changes_arrays = False  # those that do are shown an array before those that do not

    def begin_pass(self, begun: Pass) -> None:
        """A pass begins."""
        raise NotImplementedError

    def see(self, seen: Seen) -> None:
        """An array has got a name."""
        raise NotImplementedError


@contextlib.contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Within this context, an observer sees what the calling thread computes. Prompts are read in one piece.

    Raises:
        RuntimeError: something has switched the watcher off before the end, such as a debugger.
    """
    outer = sys.gettrace()
    watcher = outer if isinstance(outer, Watcher) else Watcher()
    watcher.add(observer)
    sys.settrace(watcher)
    try:
        with prefill.tokens_at_once(None):
            yield
        if sys.gettrace() is not watcher:
            raise RuntimeError(
                "what the model computed was not watched to the end of the block: an exception in a patch, a debugger "
                "or another user of sys.settrace has switched it off"
            )
    finally:
        watcher.observers.remove(observer)
        sys.settrace(outer)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern, with `*` for anything, matches a name."""
    return fnmatch.fnmatchcase(name, pattern)


class Value:
    """An array that a call has computed, on its way to its name.

    A function that returns a variable leaves the name to its caller, as `softmax` leaves `weights` to `attention`. A
    variable that is changed in part, as by `np.copyto`, gets its name after the last change.
    """

    def __init__(self, place: str, label: str, file: str, line: int) -> None:
        self.place, self.label, self.file, self.line = place, label, file, line
        self.name = ""  # until it is known


class Watcher:
    """The trace function of a thread: Python calls it whenever a function is called."""

    def __init__(self) -> None:
        functions: list[Callable[..., Any]] = [
            *(*functions_of(layers), *functions_of(model)),
            *(prefill.embed, hidden_states.all_states),
        ]
        self.statements = {inspect.unwrap(each).__code__: statements(inspect.unwrap(each)) for each in functions}
        self.observers: list[Observer] = []
        self.used: set[str] = set()  # names in this pass
        self.is_embedded = False  # whether `embed` has begun the pass that `transformer` will continue
        self.returned: Array | None = None  # by the last call,
        self.returned_value: Value | None = None  # and what is known about it
        self.returned_n_head: int | None = None

    def add(self, observer: Observer) -> None:
        """Adds an observer."""
        self.observers.append(observer)
        self.observers.sort(key=lambda each: not each.changes_arrays)  # those that record see what really flows
        self.used.clear()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call | None:
        """Follows a call that is part of a pass."""
        if frame.f_code not in self.statements:
            return None
        caller, parent = frame.f_back, None
        while caller is not None and parent is None:
            if isinstance(caller.f_trace, Call) and caller.f_trace.watcher is self:
                parent = caller.f_trace
            caller = caller.f_back
        if parent is None and not isinstance(frame.f_locals.get("params"), Params):
            return None
        self.settle_returned()
        name = frame.f_code.co_name
        if name == "embed" and (parent is None or parent.code.co_name != "embed"):
            ids = frame.f_locals["ids"]
            self.begin_pass(frame, ids.shape[1], ids, frame.f_locals.get("token_type_ids"))
            self.is_embedded = True
        elif name in ("transformer", "all_states"):
            if not self.is_embedded:  # the caller's own vectors, not those of `embed`
                self.begin_pass(frame, frame.f_locals["x"].shape[1])
            self.is_embedded = False
        return Call(self, frame, parent)

    def begin_pass(
        self, frame: FrameType, n_seq: int, ids: Array | None = None, token_type_ids: Array | None = None
    ) -> None:
        """Tells the observers that a pass begins."""
        self.used.clear()
        begun = Pass(frame.f_locals["params"], frame.f_locals.get("past"), n_seq, ids, token_type_ids)
        for observer in self.observers:
            observer.begin_pass(begun)

    def settle(self, value: Value, name: str, array: Array, n_head: int | None) -> None:
        """Gives a value its name, with a number if that is in use in this pass, and shows it."""
        numbered, n = name, 1
        while numbered in self.used:
            n += 1
            numbered = f"{name}_{n}"
        self.used.add(numbered)
        value.name = numbered
        self.show(Seen(numbered, array, value.file, value.line, n_head, None))

    def settle_returned(self) -> None:
        """Names what was returned and left to a caller, who does something else with it than to give it a name."""
        value, array = self.returned_value, self.returned
        if value is not None and not value.name and array is not None:
            self.settle(value, join_names(value.place, value.label), array, self.returned_n_head)

    def show(self, seen: Seen) -> None:
        """Shows an array to the observers."""
        for observer in self.observers:
            observer.see(seen)


class Call:
    """The trace function of a call that is followed: Python calls it before each line, and at the end."""

    def __init__(self, watcher: Watcher, frame: FrameType, parent: Call | None) -> None:
        self.watcher = watcher
        self.parent = parent
        self.code = frame.f_code
        self.statements = watcher.statements[frame.f_code]
        self.statement: Statement | None = None  # the one that is being executed
        self.given = given_arrays(frame.f_locals)
        self.n_values: dict[str, int] = {}  # how many values each variable has had
        self.values: dict[str, Value] = {}  # the value that each variable has
        self.waits: dict[str, Wait] = {}  # variables whose value has no name yet
        self.n_blocks = 0
        self.n_head: int | None = frame.f_locals.get("n_head", parent.n_head if parent else None)
        # A function that takes no parameters works for the part that calls it.
        self.params: Any = frame.f_locals.get("params", parent.params if parent else None)
        self.is_part = parent is not None and self.params is not parent.params
        self.place: str = parent.place if parent else ""
        if parent is not None and self.is_part:
            self.place = join_names(parent.place, parent.name_of(self.params))

    def name_of(self, part: Any) -> str:
        """The checkpoint's name of a part of this call's parameters."""
        if isinstance(part, Block):  # counted, and not looked up: an experiment may use one block twice
            self.n_blocks += 1
            return f"h{self.n_blocks - 1}"
        return find(part, self.params) or type(part).__name__

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call:
        """A line begins, an exception passes through, or the call returns `arg`."""
        if event == "line":
            statement = self.statements.get(frame.f_lineno)
            if statement is not self.statement:  # a statement may have several lines
                self.end_statement(frame)
                self.statement = statement
            for variable, wait in [*self.waits.items()]:
                if not wait.goes_on(frame.f_lineno):
                    self.settle(variable, frame)
        elif event == "exception":
            self.statement = None  # its variables have got no value
        elif event == "return":
            self.end_statement(frame)
            for variable in [*self.waits]:
                if frame.f_locals.get(variable) is not arg:
                    self.settle(variable, frame)
            if is_array(arg):
                self.returns(arg, frame)
        return self

    def end_statement(self, frame: FrameType) -> None:
        """Notes the variables that have just got a value, and the line of those that were changed in part."""
        if self.statement is not None:
            for variable, wait in self.statement.variables.items():
                array = frame.f_locals.get(variable)
                if is_array(array):
                    self.assigns(variable, array, wait, self.statement.line)
            for variable in self.statement.changed & self.waits.keys():
                self.values[variable].line = self.statement.line
        self.statement = None

    def assigns(self, variable: str, array: Array, wait: Wait, line: int) -> None:
        """Notes the new value of a variable, which waits for its name if it has none."""
        watcher = self.watcher
        self.values.pop(variable, None)
        self.waits.pop(variable, None)
        value = watcher.returned_value if array is watcher.returned else None
        if value is None:
            if any(type(array) is type(given) and np.may_share_memory(array, given) for given in self.given):
                return
            value = Value(self.place, self.count(variable), self.code.co_filename, line)
        elif not value.name and value.label != variable:  # a function has just returned it, and left the name open
            value.label, value.file, value.line = self.count(variable), self.code.co_filename, line
        self.values[variable] = value
        if not value.name:
            self.waits[variable] = wait

    def count(self, variable: str) -> str:
        """The name of the variable, numbered from its second value on."""
        n = self.n_values[variable] = self.n_values.get(variable, 0) + 1
        return variable if n == 1 else f"{variable}_{n}"

    def settle(self, variable: str, frame: FrameType) -> None:
        """Names the value of a variable, unless the variable has been deleted."""
        del self.waits[variable]
        array, value = frame.f_locals.get(variable), self.values[variable]
        if is_array(array) and not value.name:
            self.watcher.settle(value, join_names(value.place, value.label), array, self.n_head)

    def returns(self, array: Array, frame: FrameType) -> None:
        """Names what the call returns, if the call is a part, or if the caller does not give it a name."""
        watcher = self.watcher
        value = watcher.returned_value if array is watcher.returned else None
        for variable, own in self.values.items():
            if array is frame.f_locals.get(variable):
                value = own
        if self.is_part:
            if value is not None and value.name:  # returned by the last part inside this one
                watcher.show(Seen(self.place, array, value.file, value.line, self.n_head, value.name))
            else:
                value = value or Value(self.place, "", self.code.co_filename, frame.f_lineno)
                watcher.settle(value, self.place, array, self.n_head)
        watcher.returned, watcher.returned_value, watcher.returned_n_head = array, value, self.n_head
        if not self.is_named_by_caller():
            watcher.settle_returned()

    def is_named_by_caller(self) -> bool:
        """Whether the caller gives a variable what this call returns, or returns it in turn."""
        statement = self.parent.statement if self.parent else None
        return statement is not None and statement.called == self.code.co_name


class Wait(NamedTuple):
    """How long a variable's new value waits for its name."""

    line: int  # the last one of the statement that gives it the value,
    last_line: int  # and of the last statement that changes it in part
    is_returned: bool  # right after that, in which case it waits for the return

    def goes_on(self, line: int) -> bool:
        """Whether the value still waits when this line begins."""
        return self.is_returned or self.line < line <= self.last_line


class Statement(NamedTuple):
    """A statement in a function that gives variables a value, changes them, or returns."""

    line: int
    variables: Mapping[str, Wait]  # those that get a value
    changed: frozenset[str]  # those that get a value in part: `logits[:, i] = ...`, `np.copyto(logits, ...)`
    called: str | None  # the function, if what it returns is the value


def statements(function: Callable[..., Any]) -> dict[int, Statement]:
    """The statements of a function, by line. A statement of several lines is listed for each of them."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):  # made at run time: nothing is known about it
        return {}
    ast.increment_lineno(tree, first - 1)
    found: dict[int, Statement] = {}
    for node in ast.walk(tree):
        bodies: list[Any] = [getattr(node, field, None) for field in ("body", "orelse", "finalbody")]
        for body in filter(lambda each: isinstance(each, list), bodies):  # that of a lambda is an expression
            for i, each in enumerate(body):
                statement = read_statement(each, body[i + 1 :])
                if statement is not None:
                    found.update(dict.fromkeys(range(each.lineno, last_line(each) + 1), statement))
    return found


def read_statement(node: ast.stmt, following: list[ast.stmt]) -> Statement | None:
    """A statement, given those that follow it; None if it is of another kind."""
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return)):
        waits = {variable: wait_for(variable, node, following) for variable in assigned(node)}
        call = None if isinstance(node, (ast.Expr, ast.AugAssign)) else node.value
        called = ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else None
        return Statement(node.lineno, waits, frozenset(changed_in_part(node)), called)
    return None


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


def assigned(node: ast.stmt) -> list[str]:
    """The variables that get a value anywhere in a statement."""
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]


def changed_in_part(node: ast.stmt) -> set[str]:
    """The variables that get a value in part anywhere in a statement."""
    changed: set[str] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Subscript) and isinstance(each.ctx, ast.Store):
            target: Any = each.value
        elif isinstance(each, ast.Call) and ast.unparse(each.func) == "np.copyto":
            target = each.args[0]
        else:
            continue
        if isinstance(target, ast.Name):
            changed.add(target.id)
    return changed


def last_line(node: ast.stmt) -> int:
    """The number of a statement's last line."""
    return node.end_lineno or node.lineno


def join_names(*names: str) -> str:
    """The name of a part of a part.

    >>> join_names("h3", "attn"), join_names("", "x")
    ('h3/attn', 'x')
    """
    return "/".join(filter(None, names))


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether the value is an array, of NumPy or of a library that answers to NumPy's functions."""
    return hasattr(value, "__array_function__")


def given_arrays(arguments: Mapping[str, Any]) -> list[Array]:
    """The arrays among the arguments of a function, and those in which a past keeps its keys and values."""
    pasts = [value for value in arguments.values() if isinstance(value, (Past, LayerPast))]
    return [*filter(is_array, arguments.values()), *(array for past in pasts for array in (past.k, past.v))]


def find(part: Any, tree: Any) -> str | None:
    """The name of a part in a tree of parameters.

    >>> import numpy_gpt2
    >>> block = numpy_gpt2.load("tiny").params.h[3]
    >>> find(block.mlp.c_fc, block)
    'mlp/c_fc'
    """
    for name, child in tree._asdict().items():
        if child is part:
            return name
        if hasattr(child, "_asdict") and (inner := find(part, child)):
            return f"{name}/{inner}"
    return None


def functions_of(module: Any) -> list[Callable[..., Any]]:
    """The functions of a module as they are now, since an experiment may replace some; without `product`."""
    functions = filter(inspect.isfunction, vars(module).values())
    return [function for function in functions if function is not product]
