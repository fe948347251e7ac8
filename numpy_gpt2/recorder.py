"""See inside a forward pass: `with trace() as t` keeps every intermediate array of `layers.py` and `model.py`.

The functions there know nothing of it. Python itself can tell, line by line, what a function is doing
(`sys.settrace`, which debuggers use); the recorder listens to that, and copies each array when the line
that computes it is done. Outside of the `with` block, nothing listens.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import inspect
import linecache
import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeGuard, cast

import numpy as np

from . import layers, model
from .backend import to_host
from .params import Array, Block, Params

MASKED = {"scores": -math.inf, "scores_2": -math.inf}  # what a key that was not seen has, where it is not 0


class Step(NamedTuple):
    """One recorded array, and where it was computed."""

    name: str
    shape: tuple[int, ...]
    file: str
    line: int

    @property
    def source(self) -> str:
        """The line of code."""
        return linecache.getline(self.file, self.line).strip()


class Trace(Mapping[str, Array]):
    """What was recorded: from names to arrays, in the order of computation.

    Attributes:
        steps: for each array its name and shape, and the file and line that computed it.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._is_filled = False
        self._arrays: dict[str, Array] = {}
        self._others: dict[str, str] = {}  # second names

    def __getitem__(self, name: str) -> Array:
        if not self._is_filled:
            raise KeyError("nothing is here yet: a trace is filled at the end of its `with` block")
        try:
            return self._arrays[self._others.get(name, name)]
        except KeyError:
            raise KeyError(f"{name!r} is not among the {len(self)} arrays that were recorded") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    __eq__ = object.__eq__  # that of a mapping would compare arrays
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} arrays>"

    def fill(self, arrays: Iterable[tuple[Step, Array]], others: dict[str, str]) -> None:
        """Takes what was recorded."""
        for step, array in arrays:
            self.steps.append(step)
            self._arrays[step.name] = array
        self._others = others
        self._is_filled = True


@contextlib.contextmanager
def trace(names: str | Iterable[str] = "*", steps: bool = False) -> Iterator[Trace]:
    """Records what the model computes in a `with` block; the `Trace` is filled when the block ends.

    A name says where an array is: the block and the checkpoint's name of the part, then the variable's
    name in the source. What a part returns has the part's own name.

        x                  the sum of token and position embeddings
        h3/ln_1            what this layer norm returns, and h3/ln_1/centred, a variable in it
        h3/attn/weights    `weights` in `attention`, of block 3
        h3/mlp             what this MLP returns: the same array is h3/mlp/c_proj, and is there once
        h3/x               the residual stream between attention and MLP of block 3
        h3                 the residual stream after block 3

    A variable that gets a new value in the same call counts on: `scores`, and masked, `scores_2`. Arrays are
    copies, and each is there once; keys and values are those of the new positions.

    A variable of which a part is assigned is recorded as it is at the end of the function.

    A text that is read in pieces, or continued with its past by the next pass, is put together along the
    axis of the queries, as if it had been read at once: a key that a piece had not seen yet has a weight of
    0, as if masked. Any other pass starts the recording anew, unless `steps` keeps each apart: so use that
    for the generation of several texts, which does not go on with the same ones to the end. The logits of a
    generation are those of the last position of each pass.

    Args:
        names: a pattern, or several, of the names to keep, with `*` for anything: `"h*/attn/weights"`. The rest
            is not copied. With `steps`, a pattern may begin with a step or be for all of them.
        steps: whether each pass of the model has its own arrays: `step0/h3/attn/weights` for the prompt, `step1/...`
            for the first new token, and so on (where the context slides, reading it again is a step).

    Only the thread that asks is recorded. A debugger does not stop inside the block.

    Raises:
        RuntimeError: something is being recorded already.

    >>> import numpy_gpt2
    >>> gpt2 = numpy_gpt2.load("tiny")
    >>> with trace("h0/attn/*") as t:
    ...     logits = gpt2.logits("Once upon a time")
    >>> t["h0/attn/weights"].shape, t.steps[-1].source
    ((1, 4, 5, 5), 'y = rows @ params.w + params.b')
    """
    before = sys.gettrace()
    if isinstance(before, Recorder):
        raise RuntimeError("a trace is being recorded already: end that `with` block first")
    recording = Trace()
    recorder = Recorder([names] if isinstance(names, str) else list(names), steps)
    sys.settrace(recorder)
    try:
        yield recording
    finally:
        sys.settrace(before)
        recorder.end(recording)


class Statement(NamedTuple):
    """An assignment in a function."""

    line: int
    variables: tuple[str, ...]  # that it gives a value
    changed: tuple[str, ...]  # a part of which it gives a value: `logits[:, i] = ...`


class Record:
    """A recorded array. What it is to be called may become clear only when it is returned."""

    def __init__(self) -> None:
        self.name = ""
        self.file = ""
        self.line = 0
        self.variable = ""  # empty: it has the name of the part that returned it
        self.array: Array | None = None  # None: nobody asked for this name


class Recording:
    """What was recorded of one text, in one pass of the model or in several that go on with it.

    Args:
        prefix: what all names begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.records: list[Record] = []
        self.others: dict[str, Record] = {}  # second names
        self.makers: dict[str, tuple[CodeType, Call]] = {}  # the function, and the outermost call, that has each name

    def free_name(self, name: str, call: Call) -> str:
        """The name; with a number if another function has it, or the same one when called again from outside."""
        maker = call.code, call.root
        numbered, n = name, 1
        while self.makers.setdefault(numbered, maker) != maker:
            n += 1
            numbered = f"{name}_{n}"
        return numbered

    def take(self) -> Iterator[tuple[Step, Array]]:
        """The arrays that were wanted, each in one piece; they are not kept here."""
        pieces: dict[str, list[Record]] = {}
        for record in self.records:
            if record.array is not None:
                pieces.setdefault(record.name, []).append(record)
        for name, records in pieces.items():
            array = join([cast(Array, record.array) for record in records], MASKED.get(name.rpartition("/")[2], 0))
            yield Step(name, array.shape, records[0].file, records[0].line), array
            for record in records:
                record.array = None


class Recorder:
    """The trace function of a thread: Python calls it whenever a function is called."""

    def __init__(self, patterns: list[str], by_steps: bool) -> None:
        self.functions = assignments(layers) | assignments(model)
        self.patterns = patterns
        self.by_steps = by_steps
        self.recordings: list[Recording] = []  # by steps, or only the last
        self.past: model.Past | None = None  # of the last pass,
        self.lengths: Array | None = None  # and how far that has filled it
        self.returned: Array | None = None  # by the last call,
        self.returned_record: Record | None = None  # and its record, if it has one

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call | None:
        """Follows a call if it is part of a model's pass."""
        if frame.f_code not in self.functions:
            return None
        if frame.f_lineno != frame.f_code.co_firstlineno:  # a generator that goes on: if followed from its beginning
            return self.followed(frame)
        caller, parent = frame.f_back, None
        while caller is not None and parent is None:
            parent = self.followed(caller)
            caller = caller.f_back
        if parent is None and not isinstance(frame.f_locals.get("params"), Params):
            return None
        call = Call(self, frame, parent)
        if frame.f_code.co_name == "hidden_states":
            self.begin_pass(call.root, frame.f_locals["ids"], frame.f_locals["past"])
        return call

    def followed(self, frame: FrameType) -> Call | None:
        """The call of a frame, if this recorder follows it."""
        call = frame.f_trace
        return call if isinstance(call, Call) and call.recorder is self else None

    def begin_pass(self, root: Call, ids: Array, past: model.Past | None) -> None:
        """Decides which recording a pass belongs to. In one outermost call, all are pieces of one text."""
        if root.recording is None:
            goes_on = past is not None and past is self.past and np.array_equal(past.lengths, cast(Array, self.lengths))
            if goes_on and not self.by_steps:
                root.recording = self.recordings[-1]
                root.recording.makers.clear()
            else:
                root.recording = self.new_recording()
        self.past = past
        self.lengths = None if past is None else past.lengths + ids.shape[1]

    def new_recording(self) -> Recording:
        """The recording of another text, or step."""
        if not self.by_steps:
            self.recordings.clear()
        self.recordings.append(Recording(f"step{len(self.recordings)}/" if self.by_steps else ""))
        return self.recordings[-1]

    def last_recording(self) -> Recording:
        """What a call belongs to that is not part of a pass, such as that of the output head after it."""
        return self.recordings[-1] if self.recordings else self.new_recording()

    def end(self, trace: Trace) -> None:
        """Puts the pieces together, and lets go of everything."""
        arrays = [taken for recording in self.recordings for taken in recording.take()]
        others = {name: record.name for each in self.recordings for name, record in each.others.items()}
        trace.fill(arrays, others)
        self.past = self.lengths = self.returned = self.returned_record = None


class Call:
    """The trace function of a call that is followed: Python calls it before each line, and at the end."""

    def __init__(self, recorder: Recorder, frame: FrameType, parent: Call | None) -> None:
        self.recorder = recorder
        self.root: Call = parent.root if parent else self  # the outermost call
        self.recording: Recording | None = None  # of an outermost call: what it is a part of
        self.code = frame.f_code
        self.assignments = recorder.functions[frame.f_code]
        self.statement: Statement | None = None  # what is being executed, if it is an assignment
        self.given = given_arrays(frame.f_locals)
        self.n_values: dict[str, int] = {}  # how many values each variable has had
        self.records: dict[str, Record] = {}  # of the value that it has
        self.changed: set[str] = set()  # the variables a part of which has got another value
        self.n_blocks = 0
        # A function that takes no parameters works for the part that calls it.
        self.params: Any = frame.f_locals.get("params", parent.params if parent else None)
        self.is_part = parent is not None and self.params is not parent.params
        self.place: str = parent.place if parent else ""
        if parent is not None and self.is_part:
            self.place = "/".join(filter(None, (parent.place, parent.name_of(self.params))))

    def name_of(self, part: Any) -> str:
        """The checkpoint's name of a part of the parameters of this call."""
        if isinstance(part, Block):  # counted, and not looked up: somebody may try what happens with one block twice
            self.n_blocks += 1
            return f"h{self.n_blocks - 1}"
        return find(part, self.params) or type(part).__name__

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Call:
        """A line begins, an exception passes through, or the call returns `arg` (a generator: yields it)."""
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
            self.changed.clear()
            if is_array(arg):
                self.returns(arg, frame)
        return self

    def end_statement(self, frame: FrameType) -> None:
        """Records the variables that have just got a value, and notes those of which a part has."""
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
        if record is not None:  # what a function has just returned is recorded already
            if record.variable not in ("", variable):
                self.name(record, self.count(variable), line, value)
            if record.variable:
                self.records[variable] = record
        elif not any(type(value) is type(given) and np.may_share_memory(value, given) for given in self.given):
            self.records[variable] = record = Record()
            self.name(record, self.count(variable), line, value)

    def count(self, variable: str) -> str:
        """The variable's name, with a number from its second value on."""
        n = self.n_values[variable] = self.n_values.get(variable, 0) + 1
        return variable if n == 1 else f"{variable}_{n}"

    def returns(self, value: Array, frame: FrameType) -> None:
        """Records what the call returns, if it is a part; a value that is recorded already gets the part's name."""
        recorder = self.recorder
        record = recorder.returned_record if value is recorder.returned else None
        for variable, own in self.records.items():
            local: Any = frame.f_locals.get(variable)
            if value is local or (is_array(local) and value.base is local and value.size == local.size):
                record = own  # as it is, or in another shape
        if not self.is_part:
            if record is not None:
                self.copy(record, value)
        elif record is not None and not record.variable:  # of the last part inside this one
            self.copy(record, value, self.second_name(record))
        else:
            record = record or Record()
            self.name(record, "", record.line or frame.f_lineno, value)
        recorder.returned, recorder.returned_record = value, record

    def name(self, record: Record, variable: str, line: int, value: Array) -> None:
        """Names a record, again if it has a name, and copies the array if it is wanted by this name."""
        recording = self.belongs_to()
        if not record.name:
            recording.records.append(record)
        name = recording.prefix + "/".join(filter(None, (self.place, variable)))
        record.name = recording.free_name(name, self)
        record.variable, record.file, record.line = variable, self.code.co_filename, line
        record.array = None
        self.copy(record, value)

    def second_name(self, record: Record) -> str:
        """Makes the array known by the name of this part as well."""
        recording = self.belongs_to()
        name = recording.prefix + self.place
        recording.others[name] = record
        return name

    def copy(self, record: Record, value: Array, name: str = "") -> None:
        """Copies the array, if it is wanted by the record's name, or this one."""
        name = name or record.name
        names = name, name.removeprefix(self.belongs_to().prefix)
        if any(fnmatch.fnmatchcase(each, pattern) for each in names for pattern in self.recorder.patterns):
            record.array = to_host(value.copy())

    def belongs_to(self) -> Recording:
        """The recording that this call is a part of."""
        if self.root.recording is None:
            self.root.recording = self.recorder.last_recording()
        return self.root.recording


def is_array(value: Any) -> TypeGuard[Array]:
    """Whether this is an array, of NumPy or of a library that answers to NumPy's functions."""
    return hasattr(value, "__array_function__")


def given_arrays(arguments: Mapping[str, Any]) -> list[Array]:
    """The arrays among a function's arguments, and those in which a past keeps its keys and values."""
    pasts = [value for value in arguments.values() if isinstance(value, (model.Past, model.LayerPast))]
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


def assignments(module: ModuleType) -> dict[CodeType, dict[int, Statement]]:
    """For each function of a module, the assignments in it, by line: a statement of several lines is there for each."""
    found = {}
    for function in map(inspect.unwrap, filter(inspect.isfunction, vars(module).values())):
        try:
            lines, first = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, SyntaxError):  # made at run time: nothing is known of it
            continue
        statements = {}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                left = node.targets if isinstance(node, ast.Assign) else [node.target]
                targets = [each for target in left for each in ast.walk(target)]
                variables = [
                    each.id for each in targets if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
                ]
                parts = [each.value for each in targets if isinstance(each, ast.Subscript)]
                changed = [part.id for part in parts if isinstance(part, ast.Name)]
                statement = Statement(first + node.lineno - 1, tuple(variables), tuple(changed))
                statements.update(dict.fromkeys(range(statement.line, first + (node.end_lineno or 0)), statement))
        found[cast(FunctionType, function).__code__] = statements
    return found


def join(pieces: list[Array], masked: float) -> Array:
    """Puts what was computed for some queries after the other together, along the axis of the queries.

    Shapes: `[..., n_query, n]` each to `[..., n_queries, n]`, with the largest n; what lacks is `masked`. Positions
    `[..., n_query]` to `[..., n_queries]`, and logits of one position each, `[n_batch, n_vocab]`, to
    `[n_batch, n_pieces, n_vocab]`.
    """
    if len(pieces) == 1:
        return pieces[0]
    if pieces[0].dtype.kind == "i":
        return np.concatenate(pieces, axis=-1)
    if pieces[0].ndim == 2:
        return np.stack(pieces, axis=-2)
    n = max(piece.shape[-1] for piece in pieces)
    n_queries = sum(piece.shape[-2] for piece in pieces)
    joined = np.full((*pieces[0].shape[:-2], n_queries, n), masked, pieces[0].dtype)
    begin = 0
    for piece in pieces:
        joined[..., begin : begin + piece.shape[-2], : piece.shape[-1]] = piece
        begin += piece.shape[-2]
    return joined
