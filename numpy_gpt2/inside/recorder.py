"""Records a pass: `with trace() as t` keeps every array that the model computes.

The functions of the model know nothing about it. Python itself can report what a function does, line by line
(`sys.settrace`, which debuggers use). The recorder listens to these reports, and copies each array after the line
that computed it. Outside of the `with` block nothing listens, and nothing is slower.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import fnmatch
import inspect
import linecache
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np

from .. import layers, model
from ..cache import LayerPast, Past
from ..decoding import prefill
from ..evaluation import hidden_states
from ..machine.backend import to_host
from ..machine.products import product
from ..params import Array, Block, Params


class Step(NamedTuple):
    """One recorded array, and the place that computed it."""

    name: str
    shape: tuple[int, ...]
    file: str
    line: int

    @property
    def source(self) -> str:
        """The line of code."""
        return linecache.getline(self.file, self.line).strip()


class Trace(Mapping[str, Array]):
    """The recorded arrays by name, in the order of computation.

    Attributes:
        steps: for each array its name and shape, and the file and line that computed it.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._arrays: dict[str, Array] | None = None
        self._second_names: dict[str, str] = {}

    def __getitem__(self, name: str) -> Array:
        if self._arrays is None:
            raise KeyError("nothing is here yet: a trace is filled at the end of its `with` block")
        try:
            return self._arrays[self._second_names.get(name, name)]
        except KeyError:
            close = difflib.get_close_matches(name, [*self._arrays, *self._second_names], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise KeyError(f"{name!r} is not among the {len(self)} arrays that were recorded{hint}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays or ())

    def __len__(self) -> int:
        return len(self._arrays or ())

    __eq__ = object.__eq__  # that of a mapping would compare arrays
    __hash__ = object.__hash__

    def fill(self, arrays: dict[str, Array], second_names: dict[str, str]) -> None:
        """Adds what was recorded, at the end of the `with` block."""
        self._arrays, self._second_names = arrays, second_names

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} arrays>"


@contextlib.contextmanager
def trace(names: str | Iterable[str] = "*", *, steps: bool = False) -> Iterator[Trace]:
    """Records what the model computes in a `with` block. The `Trace` is filled when the block ends.

    A name says where an array belongs: the block and the checkpoint's name of the part, then the name of the
    variable in the source. What a part returns has the name of the part.

        x                  the sum of token and position embeddings
        h3/ln_1            what this layer norm returns; h3/ln_1/centred is a variable in it
        h3/attn/weights    `weights` in `attention`, of block 3
        h3/mlp             what this MLP returns: the same array as h3/mlp/c_proj, which is kept once
        h3/x               the residual stream between attention and MLP of block 3
        h3                 the residual stream after block 3

    The second value of a variable in the same call is numbered: `x`, then `x_2`. A variable that is changed in
    part, such as by `hidden[..., 3] = 0`, or by `np.copyto`, is recorded as it is at the end of the function.
    Arrays are copies, and each is kept once. Keys and values are those of the new positions.

    A prompt is read in one piece. A pass that continues the text of the pass before it, with the same past, is
    joined to that pass along the axis of the queries, as if the text had been read at once: a key that an
    earlier query could not see has the weight 0. Any other pass starts the recording anew, unless `steps` keeps
    the passes apart. So use `steps` to record the generation of several texts, which end at different lengths.
    The logits of a generation are those of the last position of each pass.

    Args:
        names: a pattern, or several, of the names to keep, with `*` for anything: `"h*/attn/weights"`. Other
            arrays are not copied. With `steps`, a pattern may begin with a step or apply to all of them.
        steps: whether each pass has its own arrays: `step0/h3/attn/weights` for the prompt, `step1/...` for the
            first new token, and so on. Where the context slides, reading it again is a step.

    Only the calling thread is recorded. A debugger does not stop inside the block.

    Raises:
        RuntimeError: a trace is being recorded already.

    >>> import numpy_gpt2
    >>> gpt2 = numpy_gpt2.load("tiny")
    >>> with trace("h0/attn/*") as t:
    ...     logits = gpt2.logits("Once upon a time")
    >>> t["h0/attn/weights"].shape, t.steps[-1].source
    ((1, 4, 5, 5), 'return product(x, params.w) + params.b')
    """
    outer = sys.gettrace()
    if isinstance(outer, Recorder):
        raise RuntimeError("a trace is being recorded already: end that `with` block first")
    recorded = Trace()
    recorder = Recorder([names] if isinstance(names, str) else list(names), steps)
    sys.settrace(recorder)
    try:
        with prefill.tokens_at_once(None):
            yield recorded
    finally:
        sys.settrace(outer)
        recorder.end(recorded)


class Statement(NamedTuple):
    """A statement in a function that gives variables a value."""

    line: int
    variables: tuple[str, ...]  # those that get a value
    changed: tuple[str, ...]  # those that get a value in part: `logits[:, i] = ...`, `np.copyto(logits, ...)`


class Record:
    """A recorded array. Its name may change: what a part returns gets the name of the part."""

    def __init__(self) -> None:
        self.name = ""
        self.file = ""
        self.line = 0
        self.variable = ""  # empty if the record has the name of the part that returned it
        self.array: Array | None = None  # None if the name is not wanted


class Recorder:
    """The trace function of a thread: Python calls it whenever a function is called."""

    def __init__(self, patterns: list[str], by_steps: bool) -> None:
        functions: list[Callable[..., Any]] = [
            *(*functions_of(layers), *functions_of(model)),
            *(prefill.embed, hidden_states.all_states),
        ]
        self.assignments = {inspect.unwrap(each).__code__: assignments(inspect.unwrap(each)) for each in functions}
        self.patterns = patterns
        self.by_steps = by_steps
        self.n_steps = 0
        self.prefix = "step0/" if by_steps else ""  # of all names
        self.records: list[Record] = []
        self.second_names: dict[str, Record] = {}
        self.used: set[str] = set()  # names in this pass
        self.is_embedded = False  # whether `embed` has begun the pass that `transformer` will continue
        self.past: Past | None = None  # of the last pass,
        self.lengths: Array | None = None  # and its lengths after that pass
        self.returned: Array | None = None  # by the last call,
        self.returned_record: Record | None = None  # and its record, if it has one

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call | None:
        """Follows a call that is part of a pass."""
        if frame.f_code not in self.assignments:
            return None
        caller, parent = frame.f_back, None
        while caller is not None and parent is None:
            if isinstance(caller.f_trace, Call) and caller.f_trace.recorder is self:
                parent = caller.f_trace
            caller = caller.f_back
        if parent is None and not isinstance(frame.f_locals.get("params"), Params):
            return None
        name, past = frame.f_code.co_name, frame.f_locals.get("past")
        if name == "embed" and (parent is None or parent.code.co_name != "embed"):
            self.begin_pass(past, frame.f_locals["ids"].shape[1])
            self.is_embedded = True
        elif name in ("transformer", "all_states"):
            if not self.is_embedded:  # the caller's own vectors, not those of `embed`
                self.begin_pass(past, frame.f_locals["x"].shape[1])
            self.is_embedded = False
        return Call(self, frame, parent)

    def begin_pass(self, past: Past | None, n_seq: int) -> None:
        """Keeps what was recorded before only if this pass continues it, or is a step of its own."""
        if self.by_steps:
            self.prefix = f"step{self.n_steps}/"
            self.n_steps += 1
        else:
            self.used.clear()
            if past is None or past is not self.past or not np.array_equal(past.lengths, cast(Array, self.lengths)):
                self.records.clear()
                self.second_names.clear()
        self.past = past
        self.lengths = None if past is None else past.lengths + n_seq

    def free_name(self, name: str) -> str:
        """The name, with a number if it is in use in this pass, as when the output head is called twice."""
        numbered, n = name, 1
        while numbered in self.used:
            n += 1
            numbered = f"{name}_{n}"
        self.used.add(numbered)
        return numbered

    def is_wanted(self, name: str) -> bool:
        """Whether a pattern matches the name, with its step or without."""
        names = name, name.removeprefix(self.prefix)
        return any(fnmatch.fnmatchcase(each, pattern) for each in names for pattern in self.patterns)

    def end(self, trace: Trace) -> None:
        """Fills the trace, where the arrays of several passes are joined, and releases everything."""
        arrays: dict[str, Array] = {}
        records_of: dict[str, list[Record]] = {}
        for record in self.records:
            if record.array is not None:
                records_of.setdefault(record.name, []).append(record)
        for name, records in records_of.items():
            unseen = -math.inf if name.endswith("/scores") else 0  # for a key that a pass could not see yet
            array = join([cast(Array, record.array) for record in records], unseen)
            trace.steps.append(Step(name, array.shape, records[0].file, records[0].line))
            arrays[name] = array
        trace.fill(arrays, {name: record.name for name, record in self.second_names.items()})
        for record in self.records:
            record.array = None
        self.past = self.lengths = self.returned = self.returned_record = None


class Call:
    """The trace function of a call that is followed: Python calls it before each line, and at the end."""

    def __init__(self, recorder: Recorder, frame: FrameType, parent: Call | None) -> None:
        self.recorder = recorder
        self.code = frame.f_code
        self.assignments = recorder.assignments[frame.f_code]
        self.statement: Statement | None = None  # the assignment that is being executed
        self.given = given_arrays(frame.f_locals)
        self.n_values: dict[str, int] = {}  # how many values each variable has had
        self.records: dict[str, Record] = {}  # of the value that each variable has
        self.changed: set[str] = set()  # variables that have been changed in part
        self.n_blocks = 0
        # A function that takes no parameters works for the part that calls it.
        self.params: Any = frame.f_locals.get("params", parent.params if parent else None)
        self.is_part = parent is not None and self.params is not parent.params
        self.place: str = parent.place if parent else ""
        if parent is not None and self.is_part:
            self.place = "/".join(filter(None, (parent.place, parent.name_of(self.params))))

    def name_of(self, part: Any) -> str:
        """The checkpoint's name of a part of this call's parameters."""
        if isinstance(part, Block):  # counted, and not looked up: an experiment may use one block twice
            self.n_blocks += 1
            return f"h{self.n_blocks - 1}"
        return find(part, self.params) or type(part).__name__

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call:
        """A line begins, an exception passes through, or the call returns `arg`."""
        if event == "line":
            statement = self.assignments.get(frame.f_lineno)
            if statement is not self.statement:  # a statement may have several lines
                self.end_statement(frame)
                self.statement = statement
        elif event == "exception":
            self.statement = None  # its variables have got no value
        elif event == "return":
            self.end_statement(frame)
            for variable in self.changed & self.records.keys():
                if variable in frame.f_locals:
                    self.copy(self.records[variable], frame.f_locals[variable])
            if is_array(arg):
                self.returns(arg, frame)
        return self

    def end_statement(self, frame: FrameType) -> None:
        """Records the variables that have just got a value, and notes those that were changed in part."""
        if self.statement is not None:
            for variable in self.statement.variables:
                value = frame.f_locals.get(variable)
                if is_array(value):
                    self.assigns(variable, value, self.statement.line)
            for variable in self.statement.changed:
                self.changed.add(variable)
                if variable in self.records:
                    self.records[variable].line = self.statement.line
        self.statement = None

    def assigns(self, variable: str, value: Array, line: int) -> None:
        """Records the new value of a variable."""
        self.records.pop(variable, None)
        record = self.recorder.returned_record if value is self.recorder.returned else None
        if record is not None:  # a function has just returned it, and it is recorded already
            if record.variable not in ("", variable):
                self.name(record, self.count(variable), line, value)
            if record.variable:
                self.records[variable] = record
        elif not any(type(value) is type(given) and np.may_share_memory(value, given) for given in self.given):
            self.records[variable] = record = Record()
            self.name(record, self.count(variable), line, value)

    def count(self, variable: str) -> str:
        """The name of the variable, numbered from its second value on."""
        n = self.n_values[variable] = self.n_values.get(variable, 0) + 1
        return variable if n == 1 else f"{variable}_{n}"

    def returns(self, value: Array, frame: FrameType) -> None:
        """Records what the call returns, if the call is a part; a value that is recorded gets the part's name."""
        recorder = self.recorder
        record = recorder.returned_record if value is recorder.returned else None
        for variable, own in self.records.items():
            local: Any = frame.f_locals.get(variable)
            if value is local or (is_array(local) and value.base is local and value.size == local.size):
                record = own  # as it is, or in another shape
        if not self.is_part:
            if record is not None:
                self.copy(record, value)
        elif record is not None and not record.variable:  # returned by the last part inside this one
            self.copy(record, value, self.second_name(record))
        else:
            record = record or Record()
            self.name(record, "", record.line or frame.f_lineno, value)
        recorder.returned, recorder.returned_record = value, record

    def name(self, record: Record, variable: str, line: int, value: Array) -> None:
        """Gives a record a name, or another one, and copies the array if it is wanted by this name."""
        if not record.name:
            self.recorder.records.append(record)
        record.name = self.recorder.free_name(self.recorder.prefix + "/".join(filter(None, (self.place, variable))))
        record.variable, record.file, record.line = variable, self.code.co_filename, line
        record.array = None
        self.copy(record, value)

    def second_name(self, record: Record) -> str:
        """Makes the array available by the name of this part as well."""
        name = self.recorder.prefix + self.place
        self.recorder.second_names[name] = record
        return name

    def copy(self, record: Record, value: Array, name: str = "") -> None:
        """Copies the array, if it is wanted by this name, or else by the name of the record."""
        if self.recorder.is_wanted(name or record.name):
            record.array = to_host(value.copy())


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


def assignments(function: Callable[..., Any]) -> dict[int, Statement]:
    """What gives variables a value in a function, by line. A statement of several lines is listed for each of them."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):  # made at run time: nothing is known about it
        return {}
    statements = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            left = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [each for target in left for each in ast.walk(target)]
            variables = [each.id for each in targets if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
            parts = [each.value for each in targets if isinstance(each, ast.Subscript)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "np.copyto":
            variables, parts = [], node.args[:1]
        else:
            continue
        changed = [part.id for part in parts if isinstance(part, ast.Name)]
        statement = Statement(first + node.lineno - 1, tuple(variables), tuple(changed))
        statements.update(dict.fromkeys(range(statement.line, first + (node.end_lineno or 0)), statement))
    return statements


def join(passes: list[Array], unseen: float) -> Array:
    """Joins what several passes computed, along the axis of the queries.

    Shapes: `[..., n_query, n]` each to `[..., n_queries, n]` with the largest n, filled up with `unseen`.
    Positions `[..., n_query]` to `[..., n_queries]`. Logits of one position each, `[n_batch, n_vocab]`, to
    `[n_batch, n_passes, n_vocab]`.
    """
    if len(passes) == 1:
        return passes[0]
    if passes[0].dtype.kind == "i":
        return np.concatenate(passes, axis=-1)
    if passes[0].ndim == 2:
        return np.stack(passes, axis=-2)
    n = max(array.shape[-1] for array in passes)
    n_queries = sum(array.shape[-2] for array in passes)
    joined = np.full((*passes[0].shape[:-2], n_queries, n), unseen, passes[0].dtype)
    begin = 0
    for array in passes:
        joined[..., begin : begin + array.shape[-2], : array.shape[-1]] = array
        begin += array.shape[-2]
    return joined
