"""Records a pass: `with trace() as t` keeps every array that the model computes."""

from __future__ import annotations

import contextlib
import linecache
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import numpy as np

from ..cache import Past
from ..interactive import describe, did_you_mean, html_table
from ..machine.backend import to_host
from ..params import Array, Params, named_arrays
from .watcher import Observer, Pass, Seen, matches, observed_by

N_SHOWN = 4  # arrays at the beginning and at the end of a trace's `repr`
N_ROWS = 400  # of its table in a notebook: all arrays of 14 blocks


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
        ids: the token ids that were read, `[n_batch, n_seq]`; None if they are not known, or with several steps.
        token_type_ids: the types of the tokens, likewise; None for a text without them.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ids: Array | None = None
        self.token_type_ids: Array | None = None
        self._arrays: dict[str, Array] | None = None
        self._second_names: dict[str, str] = {}
        self._parameters: dict[str, weakref.ref[Array]] = {}

    def __getitem__(self, name: str) -> Array:
        if self._arrays is None:
            raise KeyError("nothing is here yet: a trace is filled at the end of its `with` block")
        try:
            return self._arrays[self._second_names.get(name, name)]
        except KeyError:
            near = did_you_mean(name, [*self._arrays, *self._second_names])
            raise KeyError(f"{name!r} is not among the {len(self)} arrays that were recorded{near}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays or ())

    def __len__(self) -> int:
        return len(self._arrays or ())

    __eq__ = object.__eq__  # that of a mapping would compare arrays
    __hash__ = object.__hash__

    def second_names(self, name: str) -> list[str]:
        """Other names of a recorded array: `h3/mlp`, given `h3/mlp/c_proj`."""
        return [second for second, first in self._second_names.items() if first == name]

    def parameter(self, name: str) -> Array:
        """A parameter of the model that was recorded, by its name in the checkpoint. The trace does not keep the model.

        Raises:
            KeyError: there is no such parameter, or the model is gone.
        """
        array = self._parameters[name]() if name in self._parameters else None
        if array is None:
            raise KeyError(f"the parameter {name!r} is not there: it is looked up in the model, which must still exist")
        return array

    def fill(self, arrays: dict[str, Array], second_names: dict[str, str], params: Params | None) -> None:
        """Adds what was recorded, at the end of the `with` block."""
        self._arrays, self._second_names = arrays, second_names
        self._parameters = {name: weakref.ref(array) for name, array in named_arrays(params)} if params else {}

    def __repr__(self) -> str:
        """The first names and the last ones, with the shapes of the arrays."""
        width = max((len(step.name) for step in self.steps), default=0)
        lines = [f"  {step.name:{width}}  {describe(self[step.name])}" for step in self.steps]
        if len(lines) > 2 * N_SHOWN:
            lines[N_SHOWN:-N_SHOWN] = [f"  ... {len(lines) - 2 * N_SHOWN} more ..."]
        return "\n".join([f"<Trace of {len(self)} arrays>", *lines])

    def _repr_html_(self) -> str:
        rows = [(step.name, describe(self[step.name]), step.source) for step in self.steps[:N_ROWS]]
        more = f", of which the first {N_ROWS} are shown" if len(self) > N_ROWS else ""
        return html_table(f"Trace of {len(self)} arrays{more}", rows, head=("name", "array", "line"))


@contextlib.contextmanager
def trace(names: str | Iterable[str] = "*", *, steps: bool = False) -> Iterator[Trace]:
    """Records what the model computes in a `with` block. The `Trace` is filled when the block ends.

    A name says where an array belongs: the block and the checkpoint's name of the part, then the name of the
    variable in the source. What a part returns has the name of the part.

        x                  the sum of token and position embeddings; x_2, with those of token types added
        h3/ln_1            what this layer norm returns; h3/ln_1/centred is a variable in it
        h3/attn/weights    `weights` in `attention`, of block 3
        h3/mlp             what this MLP returns: the same array as h3/mlp/c_proj, which is kept once
        h3/x               the residual stream between attention and MLP of block 3
        h3                 the residual stream after block 3

    The second value of a variable in the same call is numbered: `x`, then `x_2`. A variable that is changed in
    part, such as by `hidden[..., 3] = 0`, or by `np.copyto`, is recorded as it is after the last change. Arrays are
    copies, and each is kept once. Keys and values are those of the new positions. `patch` changes arrays by the same
    names; what it has made of them is recorded.

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

    Only the calling thread is recorded. A debugger does not stop inside the block. Where a function of the model is
    replaced, two things are not seen: what a decorator made with `functools.wraps` does to the result, and a change in
    part by any other means than `x[...] = ...`, `np.copyto` or `out=x`.

    Raises:
        RuntimeError: something has switched the recording off, such as a debugger.

    >>> import numpy_gpt2
    >>> gpt2 = numpy_gpt2.load("tiny")
    >>> with trace("h0/attn/*") as t:
    ...     logits = gpt2.logits("Once upon a time")
    >>> t["h0/attn/weights"].shape, t.steps[-1].source
    ((1, 4, 4, 4), 'return product(x, params.w) + params.b')
    """
    recorded = Trace()
    recorder = Recorder([names] if isinstance(names, str) else list(names), steps)
    try:
        with observed_by(recorder):
            yield recorded
    finally:
        recorder.end(recorded)


class Record:
    """The arrays of one name: one, or one for each pass that is joined to the others."""

    def __init__(self, file: str, line: int) -> None:
        self.file, self.line = file, line
        self.arrays: dict[int, Array] = {}  # by the number of the pass


class Recorder(Observer):
    """Keeps copies of the arrays whose names match a pattern."""

    def __init__(self, patterns: list[str], by_steps: bool) -> None:
        self.patterns = patterns
        self.by_steps = by_steps
        self.n_passes = 0
        self.prefix = "step0/" if by_steps else ""  # of all names
        self.records: dict[str, Record] = {}
        self.second_names: dict[str, str] = {}
        self.ids: list[Array | None] = []  # of the passes that are joined,
        self.token_type_ids: list[Array | None] = []  # and the types of these tokens
        self.params: Params | None = None  # those of the last pass,
        self.past: Past | None = None  # what that pass continued,
        self.lengths: Array | None = None  # and the lengths of that after it

    def begin_pass(self, begun: Pass) -> None:
        """Keeps what was recorded before only if this pass continues it, or is a step of its own."""
        past = begun.past
        if self.by_steps:
            self.prefix = f"step{self.n_passes}/"
        elif past is None or past is not self.past or not np.array_equal(past.lengths, cast(Array, self.lengths)):
            self.records.clear()
            self.second_names.clear()
            self.ids.clear()
            self.token_type_ids.clear()
        self.n_passes += 1
        for kept, ids in ((self.ids, begun.ids), (self.token_type_ids, begun.token_type_ids)):
            kept.append(None if ids is None else to_host(ids.copy()))
        self.params, self.past = begun.params, past
        self.lengths = None if past is None else past.lengths + begun.n_seq

    def see(self, seen: Seen) -> None:
        """Copies the array, if it is wanted; again at its second name, before which a patch may have changed it."""
        name = self.prefix + (seen.first_name or seen.name)
        if seen.first_name:
            self.second_names[self.prefix + seen.name] = name
        is_kept = name in self.records and self.n_passes in self.records[name].arrays
        if is_kept or any(
            matches(n, pattern) for n in (seen.name, self.prefix + seen.name) for pattern in self.patterns
        ):
            record = self.records.setdefault(name, Record(seen.file, seen.line))
            record.arrays[self.n_passes] = to_host(seen.array.copy())

    def end(self, trace: Trace) -> None:
        """Fills the trace, where the arrays of several passes are joined, and releases everything."""
        arrays: dict[str, Array] = {}
        for name, record in self.records.items():
            unseen = -math.inf if name.endswith("/scores") else 0  # for a key that a pass could not see yet
            array = join([*record.arrays.values()], unseen)
            trace.steps.append(Step(name, array.shape, record.file, record.line))
            arrays[name] = array
        if not self.by_steps:
            trace.ids, trace.token_type_ids = join_ids(self.ids), join_ids(self.token_type_ids)
        trace.fill(arrays, self.second_names, self.params)
        self.records, self.params, self.past, self.lengths = {}, None, None, None


def join_ids(passes: list[Array | None]) -> Array | None:
    """The ids of several passes, `[n_batch, n_seq]` each, as those of one; None if those of a pass are not known."""
    known = [ids for ids in passes if ids is not None]
    return np.concatenate(known, axis=1) if len(known) == len(passes) > 0 else None


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
