"""Watches a pass: gives each array that the model computes a name, and shows it to whoever observes.

The functions of the model know nothing about it. Python itself can report what a function does, line by line
(`sys.settrace`, which debuggers use). The watcher listens to these reports. An array is shown as soon as its name is
known, and before it is used: so an observer may keep a copy, as `recorder.py` does, or change the array, as
`patches.py` does. Where nobody observes, nothing listens, and nothing is slower.
"""

from __future__ import annotations

import abc
import contextlib
import fnmatch
import functools
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from .. import layers, model
from ..cache import Past
from ..decoding import prefill
from ..evaluation import hidden_states
from ..machine.products import product
from ..params import Array, Block, Params
from .statements import Statement, Wait, statements


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
    is_given: bool  # whether its memory is that of something that the call was given, such as a parameter


class Observer(abc.ABC):
    """Sees every array of each pass in the calling thread, within `observed_by`."""

    changes_arrays = False  # those that do are shown an array before those that do not

    @abc.abstractmethod
    def begin_pass(self, begun: Pass) -> None:
        """A pass begins."""

    @abc.abstractmethod
    def see(self, seen: Seen) -> None:
        """An array has got a name."""


@contextlib.contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Within this context, an observer sees what the calling thread computes. Prompts are read in one piece.

    Raises:
        RuntimeError: something has switched the watcher off before the end, such as a debugger.
    """
    outer = sys.gettrace()
    watcher = outer if isinstance(outer, Watcher) else Watcher()
    watcher.add(observer)
    try:
        yield
        if sys.gettrace() is not watcher:
            raise RuntimeError(
                "what the model computed was not watched to the end of the block: an exception in a patch, a debugger "
                "or another user of sys.settrace has switched it off"
            )
    finally:
        watcher.remove(observer)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern, with `*` for anything, matches a name."""
    return fnmatch.fnmatchcase(name, pattern)


class Value:
    """An array that a call has computed, on its way to its name.

    A function that returns a variable leaves the name to its caller, as `softmax` leaves `weights` to `attention`. A
    variable that is changed in part, as by `np.copyto`, gets its name after the last change.
    """

    def __init__(self, place: str, label: str, file: str, line: int) -> None:
        self.place, self.file, self.line = place, file, line
        self.label = label  # the variable that has it; empty if a part has returned it
        self.name = ""  # until it is known


class Returned(NamedTuple):
    """What a call has returned, if anything is known about it."""

    array: Array
    value: Value
    n_head: int | None


class Watcher:
    """The trace function of a thread: Python calls it whenever a function is called."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.is_left = False  # whether the last observer has left in another thread
        self.functions: dict[CodeType, Function] = {}  # that are followed
        self.observers: list[Observer] = []
        self.end = contextlib.ExitStack()  # what is to be done when the last observer leaves
        self.used: set[str] = set()  # names in this pass
        self.begun: list[Observer] = []  # to whom `embed` has begun the pass that `transformer` will continue
        self.unnamed: Returned | None = None  # by the last call, which has left the name to its caller

    def read_functions(self) -> None:
        """Follows the functions of the model as they are now: an experiment may replace some."""
        for module, names in (layers, None), (model, None), (prefill, ["embed"]), (hidden_states, ["all_states"]):
            self.functions.update(functions_of(module, names))

    def add(self, observer: Observer) -> None:
        """Adds an observer."""
        self.read_functions()
        if not self.observers:
            self.end.callback(sys.settrace, sys.gettrace())
            self.end.enter_context(prefill.tokens_at_once(None))
        self.observers.append(observer)
        self.observers.sort(key=lambda each: not each.changes_arrays)  # those that record see what really flows
        self.used.clear()
        sys.settrace(self)

    def remove(self, observer: Observer) -> None:
        """Removes an observer. Several may leave in any order, as generators do that hold one each."""
        self.observers.remove(observer)
        if threading.get_ident() != self.thread:  # `__call__` ends it where it began
            self.is_left = not self.observers
        elif self.observers:
            sys.settrace(self)  # an exception in a patch may have switched it off
        else:
            self.end.close()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call | None:
        """Follows a call that is part of a pass."""
        if self.is_left:
            self.end.close()
            return None
        function = self.functions.get(frame.f_code)
        if function is None:
            return None
        caller, parent = frame.f_back, None
        while caller is not None and parent is None:
            if isinstance(caller.f_trace, Call) and caller.f_trace.watcher is self:
                parent = caller.f_trace
            caller = caller.f_back
        if parent is None and not isinstance(frame.f_locals.get("params"), Params):
            return None
        self.settle_returned()
        call, given = Call(self, function, frame, parent), frame.f_locals
        if function.name == "embed" and "ids" in given and (parent is None or parent.function.name != "embed"):
            self.begun = []
            ids, types = given["ids"], given.get("token_type_ids")
            self.begin_pass(Pass(call.params, given.get("past"), ids.shape[1], ids, types))
            self.begun = [*self.observers]
        elif function.name in ("transformer", "all_states") and "x" in given:  # which need not come from `embed`
            self.begin_pass(Pass(call.params, given.get("past"), given["x"].shape[1], None, None))
            self.begun = []
        return call

    def begin_pass(self, begun: Pass) -> None:
        """Tells the observers that a pass begins, unless they know."""
        self.read_functions()
        if not self.begun:
            self.used.clear()
        for observer in self.observers:
            if observer not in self.begun:
                observer.begin_pass(begun)

    def settle(self, value: Value, name: str, array: Array, n_head: int | None, is_given: bool = False) -> None:
        """Gives a value its name, or another one, with a number if that is in use in this pass, and shows it."""
        numbered, n = name, 1
        while numbered in self.used:
            n += 1
            numbered = f"{name}_{n}"
        self.used.add(numbered)
        seen = Seen(numbered, array, value.file, value.line, n_head, value.name or None, is_given)
        value.name = value.name or numbered
        for observer in self.observers:
            observer.see(seen)

    def settle_returned(self) -> None:
        """Names what was returned and left to a caller, who does something else with it than to give it a name."""
        if self.unnamed is not None and not self.unnamed.value.name:
            array, value, n_head = self.unnamed
            self.settle(value, join_names(value.place, value.label), array, n_head)
        self.unnamed = None


class Call:
    """The trace function of a call that is followed: Python calls it before each line, and at the end."""

    def __init__(self, watcher: Watcher, function: Function, frame: FrameType, parent: Call | None) -> None:
        self.watcher = watcher
        self.function = function
        self.parent = parent
        self.file = frame.f_code.co_filename
        self.statement: Statement | None = None  # the one that is being executed
        self.returned: list[Returned] = []  # by calls within this one since the statement began
        self.given = given_arrays((*frame.f_locals.values(),))
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
            statement = self.function.statements.get(frame.f_lineno)
            if statement is not self.statement:  # a statement may have several lines
                self.end_statement(frame)
                self.returned.clear()
                self.statement = statement
            for variable, wait in [*self.waits.items()]:
                if not wait.goes_on(frame.f_lineno):
                    self.settle(variable, frame)
        elif event == "exception" and arg[0] is not StopIteration:  # which may only end a loop inside an expression
            self.statement = self.watcher.unnamed = None  # its variables have got no value
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
                if is_array(frame.f_locals.get(variable)):
                    self.assigns(variable, frame, wait, self.statement.line)
            for variable in self.statement.changed & self.waits.keys():
                self.values[variable].line = self.statement.line
        self.statement = None

    def assigns(self, variable: str, frame: FrameType, wait: Wait, line: int) -> None:
        """Notes the new value of a variable, which waits until it is shown by that variable, or not at all."""
        array = frame.f_locals[variable]
        self.values.pop(variable, None)
        self.waits.pop(variable, None)
        value = self.value_of(array, frame)
        if value is None and self.is_given(array):
            return
        is_changed = wait.last_line > wait.line
        if value is None:
            value = Value(self.place, variable, self.file, line)
        elif value.label != variable and (value.label or is_changed):  # what a part has returned has the part's name
            value.place, value.label, value.file, value.line = self.place, variable, self.file, line
        elif value.name and not is_changed:
            self.values[variable] = value
            return
        self.values[variable] = value
        self.waits[variable] = wait

    def value_of(self, array: Array, frame: FrameType) -> Value | None:
        """What is known about an array that a call in this statement has returned, or that a variable has."""
        returned = [each.value for each in self.returned if each.array is array]
        own = [value for variable, value in self.values.items() if frame.f_locals.get(variable) is array]
        return next(iter(returned + own), None)

    def is_given(self, array: Array) -> bool:
        """Whether the memory of an array is that of something that this call was given."""
        return any(share_memory(array, given) for given in self.given)

    def settle(self, variable: str, frame: FrameType) -> None:
        """Names the value of a variable, unless the variable has been deleted."""
        del self.waits[variable]
        array, value = frame.f_locals.get(variable), self.values[variable]
        if is_array(array):
            self.show(value, join_names(value.place, value.label), array)

    def show(self, value: Value, name: str, array: Array) -> None:
        """Gives a value a name, and shows it."""
        self.watcher.settle(value, name, array, self.n_head, self.is_given(array))

    def returns(self, array: Array, frame: FrameType) -> None:
        """Names what the call returns, if the call is a part, or if the caller does not give it a name."""
        value = self.value_of(array, frame)
        if self.is_part:
            value = value or Value(self.place, "", self.file, frame.f_lineno)
            value.label = ""
            self.show(value, self.place, array)
        if value is None:
            return
        returned = Returned(array, value, self.n_head)
        if self.parent is not None:
            self.parent.returned.append(returned)
        self.watcher.unnamed = returned
        if not self.is_named_by_caller(frame):
            self.watcher.settle_returned()

    def is_named_by_caller(self, frame: FrameType) -> bool:
        """Whether the caller gives a variable what this call returns, or returns it in turn."""
        parent = self.parent
        is_direct = frame.f_back is not None and frame.f_back.f_trace is parent  # no function is in between
        statement = parent.statement if parent else None
        return is_direct and statement is not None and statement.called == self.function.name


class Function(NamedTuple):
    """A function of the model, or one that somebody has put in its place."""

    name: str  # in its module
    statements: Mapping[int, Statement]  # by line


def join_names(*names: str) -> str:
    """The name of a part of a part.

    >>> join_names("h3", "attn"), join_names("", "x")
    ('h3/attn', 'x')
    """
    return "/".join(filter(None, names))


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether the value is an array, of NumPy or of a library that answers to NumPy's functions."""
    return hasattr(value, "__array_function__")


def given_arrays(given: Any) -> list[Array]:
    """The arrays among the arguments of a function, and in its parameters and its past."""
    if is_array(given):
        return [given]
    if isinstance(given, Past):
        return [given.k, given.v, given.lengths]
    return [array for each in given for array in given_arrays(each)] if isinstance(given, tuple) else []


def share_memory(a: Array, b: Array) -> bool:
    """Whether two arrays may share memory. One in main memory and one on a GPU do not."""
    return isinstance(a, np.ndarray) == isinstance(b, np.ndarray) and np.may_share_memory(a, b)


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


def functions_of(module: Any, names: list[str] | None) -> dict[CodeType, Function]:
    """These functions of a module, or all but `product`, as they are now, since an experiment may replace some."""
    functions = {name: plain(vars(module)[name]) for name in names or vars(module)}
    return {
        function.__code__: Function(name, statements(function.__code__))
        for name, function in functions.items()
        if inspect.isfunction(function) and function is not product
    }


def plain(function: Any) -> Any:
    """The function inside decorators, `functools.partial`, and methods of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(getattr(function, "__func__", function))
