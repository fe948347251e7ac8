"""Changes what is inside a pass: `with patch({"h3/attn/a": zero(head=1)})` silences a head.

An array is changed as soon as it has its name, before the model goes on with it. The functions of the model know
nothing about it; `watcher.py` says how that is done.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..checks import check_whole_number
from ..interactive import describe, did_you_mean
from ..params import Array
from .watcher import Observer, Pass, Seen, is_array, matches, observed_by

Places: TypeAlias = int | Sequence[int] | None  # heads or positions, counted from 0; None for all


class Change:
    """A change that can be limited to some heads and positions, such as `scale(0.5, head=1, position=[4, 5])`.

    Scores that the mask has made minus infinity stay so.

    Args:
        name: what it is called, with its arguments.
        new: what an array becomes, given the array and the positions of its tokens, `[n_batch, n_seq]`. Its result
            is broadcast to the shape of the array.
        head: the heads to change; by default all.
        position: the positions to change, counted from the beginning of the text, also where the text is read with
            a past; by default all. For scores and weights, these are the positions of the queries. Where a context
            slides, and in each window of a long text that is scored, they are counted from its beginning.

    Raises:
        ValueError: head or position is not a whole number from 0 on, or several of them.
    """

    def __init__(
        self, name: str, new: Callable[[Array, Array], Array], head: Places = None, position: Places = None
    ) -> None:
        self.name, self.new = name, new
        self.head, self.position = as_list("head", head), as_list("position", position)

    def of_head(self, head: int) -> Change:
        """The same change, of one head only."""
        return Change(self.name, self.new, head, self.position)

    def __repr__(self) -> str:
        places = {"head": self.head, "position": self.position}
        name, _, arguments = self.name.removesuffix(")").partition("(")
        inside = [*filter(None, [arguments]), *(f"{name}={each}" for name, each in places.items() if each is not None)]
        return f"{name}({', '.join(inside)})" if inside else name


class ReadyMade(Change):
    """A change that needs no numbers: it is used as it is, or limited: `zero`, `zero(head=1)`."""

    def __init__(self, name: str, new: Callable[[Array, Array], Array], doc: str) -> None:
        super().__init__(name, new)
        self.__doc__ = doc

    def __call__(self, *, head: Places = None, position: Places = None) -> Change:
        """The same change, of these heads and positions only."""
        return Change(self.name, self.new, head, position)


def as_list(name: str, places: Places) -> list[int] | None:
    """Heads or positions as a list; None for all.

    Raises:
        ValueError: one of them is not a whole number from 0 on.
    """
    if places is None:
        return None
    if name == "position" and isinstance(places, numbers.Integral) and places < 0:
        raise ValueError(f"positions are counted from 0: of n tokens, the last one has n - 1, not {places}")
    return [check_whole_number(name, i) for i in (places if np.iterable(places) else [places])]


zero = ReadyMade("zero", lambda array, positions: np.zeros_like(array), "Puts 0 there.")
mean = ReadyMade(
    "mean",
    lambda array, positions: mean_of_positions(array),
    "Puts the mean over all positions of the pass there, those of padding included. So positions get something of what "
    "follows them, and only the last one predicts as it might.",
)


def mean_of_positions(array: Array) -> Array:
    """The mean over the axis of the positions.

    Shapes: `[..., n_seq, n]` to `[..., 1, n]`.

    Raises:
        ValueError: there is only one position, as in most passes of a generation, or the mean is not a finite number.
    """
    if array.ndim < 3 or array.shape[-2] == 1:
        raise ValueError(
            f"mean takes the mean over several positions, which the shape {list(array.shape)} does not have: "
            "put(values) puts a mean there that was taken before"
        )
    average = array.mean(axis=-2, keepdims=True)
    if not np.isfinite(average).all():
        raise ValueError("mean takes the mean over the positions, and here it is not finite: masked scores have none")
    return average


def scale(factor: float, *, head: Places = None, position: Places = None) -> Change:
    """Multiplies by a number: `scale(0.5)`."""
    factor = float(factor)

    def new(array: Array, positions: Array) -> Array:
        with np.errstate(invalid="ignore"):  # masked scores times 0, which are not used
            return array * factor

    return Change(f"scale({factor})", new, head, position)


def put(values: Array, *, head: Places = None, position: Places = None) -> Change:
    """Puts other values there, such as those of another text: `put(t["h3"], position=4)`.

    Args:
        values: an array whose shape broadcasts to that of the one that it replaces. With `position`, it has the values
            for all positions of a text from the first on, of which those are used.
        head, position: as for `Change`.

    Raises:
        TypeError: values are not an array.
        ValueError: values have nothing for one of the positions.
    """
    if not is_array(values):
        raise TypeError(f"put takes an array, not {type(values).__name__}: numpy.array makes one of a list")
    places = as_list("position", position)
    n_values = values.shape[-2] if values.ndim > 1 else 1
    if places and n_values > 1 and max(places) >= n_values:
        raise ValueError(f"the values are those of {n_values} positions: there are none for position {max(places)}")

    def new(array: Array, positions: Array) -> Array:
        fits = broadcasts(values.shape, (*array.shape[:-2], n_values, array.shape[-1]))
        if places is None or n_values == 1 or not fits:
            return values
        whole = values.reshape((1,) * (array.ndim - values.ndim) + values.shape)
        index = np.minimum(positions, n_values - 1)  # what lies beyond is not among the places
        return np.take_along_axis(whole, np.asarray(by_position(index, array.ndim), like=whole), axis=-2)

    return Change(f"put({describe(values)})", new, head, position)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether arrays of one shape can be broadcast to another one."""
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def by_position(of_tokens: Array, ndim: int) -> Array:
    """What is given for each token, in a shape that broadcasts to arrays of ndim axes.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, 1]` or `[n_batch, 1, n_seq, 1]`.
    """
    return of_tokens.reshape(len(of_tokens), *(1,) * (ndim - 3), of_tokens.shape[1], 1)


Replacement: TypeAlias = Change | Array | Callable[[Array], Array | None]


@contextlib.contextmanager
def patch(changes: Mapping[str, Replacement]) -> Iterator[None]:
    """Changes what the model computes in a `with` block, by the names that `trace` gives.

    What follows from a changed array follows: `patch({"h3/attn/a": zero(head=1)})` is the model without head 1 of block
    3, in `logits`, `hidden_states`, `generate`, `stream`, `score` and whatever else runs a pass. Keys and values that
    are changed stay so in a past. A `trace` in or around the block records what really flowed. Several patches may be
    active at once: for each name of an array, the outer ones come first, and in each, changes in their order. What a
    part returns has a second name, such as `h3/mlp`, which comes after the first, `h3/mlp/c_proj`.

    Args:
        changes: by name, or by a pattern with `*` for anything, as for `trace`; `step2/h3` is `h3` in the third pass
            since the block began, so in generation where the second new token is read. Each change is one of these:

            - a function of the array, `[n_batch, ...]`, that changes it in place or returns another one;
            - an array of the same shape and type;
            - `zero`, `mean`, `scale(0.5)` or `put(values)`, each also with `head` and `position`.

    A prompt is read in one piece, and no tokens are drafted. Only the calling thread is affected. In `generate`, equal
    prompts are read once: the first axis of the arrays has the different prompts, and then all texts that go on.

    Raises:
        TypeError: a change is something else, or its result is not an array of the same type.
        ValueError: a result has another shape, an array has no heads or no positions or cannot be changed alone, or
            nothing had a name like that before the block ended. A change that has changed nothing is a warning.
        RuntimeError: something has switched the patch off, such as a debugger.

    >>> import numpy_gpt2
    >>> gpt2 = numpy_gpt2.load("tiny")
    >>> with patch({"h3/mlp": zero}):
    ...     gpt2.generate("The princess opened the door", 5, temperature=0)
    ', and the princess was'
    """
    patcher = Patcher(changes)
    with observed_by(patcher):
        yield
    patcher.check_used()
    patcher.warn_of_no_effect()


class Patcher(Observer):
    """Changes the arrays whose names match a pattern."""

    changes_arrays = True

    def __init__(self, changes: Mapping[str, Replacement]) -> None:
        if not isinstance(changes, Mapping):
            raise TypeError(f"a patch takes changes by name, such as {{'h3/mlp': zero}}, not {type(changes).__name__}")
        for pattern, change in changes.items():
            if not isinstance(pattern, str):
                raise TypeError(f"a patch goes by the names of arrays, such as 'h3/attn/weights', not by {pattern!r}")
            if not (callable(change) or isinstance(change, Change) or is_array(change)):
                kind = type(change).__name__
                raise TypeError(
                    f"the patch of {pattern!r} must be a function, an array, or a change like zero: not {kind}"
                )
        self.changes = dict(changes)
        self.n_passes = 0
        self.positions = np.zeros((1, 0), int)  # of the tokens of the pass, [n_batch, n_seq] or [1, n_seq]
        self.names: dict[str, None] = {}  # all that were seen, in order
        self.matched: set[str] = set()  # patterns;
        self.reached: set[str] = set()  # those whose positions were in a text;
        self.effective: set[str] = set()  # and those whose change has made a difference

    def begin_pass(self, begun: Pass) -> None:
        """Notes the positions of the tokens."""
        lengths = np.zeros(1, int) if begun.past is None else begun.past.lengths
        self.positions = lengths[:, None] + np.arange(begun.n_seq)
        self.n_passes += 1

    def see(self, seen: Seen) -> None:
        """Changes the array, unless that was done by its first name."""
        self.names[seen.name] = None
        for pattern, change in self.changes.items():
            if self.matches(seen.name, pattern) and not (seen.first_name and self.matches(seen.first_name, pattern)):
                self.matched.add(pattern)
                check_changeable(seen)
                before = seen.array.copy()
                if self.apply(change, seen):
                    self.reached.add(pattern)
                if (before != seen.array).any():
                    self.effective.add(pattern)

    def matches(self, name: str, pattern: str) -> bool:
        """Whether a pattern matches the name, with its step or without."""
        return matches(name, pattern) or matches(f"step{self.n_passes - 1}/{name}", pattern)

    def apply(self, change: Replacement, seen: Seen) -> bool:
        """Changes an array in place, unless it has none of the positions to change; returns whether it has."""
        array = seen.array
        if isinstance(change, Change):
            where = np.asarray(self.where(change, seen), like=array)
            if not where.any():
                return False
            new = check_result(change.new(array, self.positions), seen, is_broadcast=True)
            np.copyto(array, new, where=np.logical_and(where, array != -math.inf))  # masked scores stay masked
            return True
        result = change(array) if callable(change) else change
        if result is not None and result is not array:
            array[...] = check_result(result, seen)
        return True

    def where(self, change: Change, seen: Seen) -> Array:
        """Which elements are to change, in a shape that broadcasts to the shape of the array.

        Raises:
            ValueError: the array has no axis of heads, or none of positions, or there is no such head.
        """
        array, where = seen.array, np.array(True)
        shape = f"{seen.name} has the shape {list(array.shape)}"
        if change.head is not None:
            n_head = seen.n_head
            if array.ndim != 4 or array.shape[1] != n_head or n_head is None:
                raise ValueError(f"{shape}, without an axis of heads: q, k, v, scores, e, weights and a have one")
            for head in change.head:
                check_whole_number(f"head of {seen.name}", head, at_most=n_head - 1)
            where = np.isin(np.arange(n_head), change.head)[:, None, None]
        if change.position is not None:
            if array.ndim < 3 or array.shape[-2] != self.positions.shape[1]:
                raise ValueError(f"{shape}, without an axis of positions: leave out position")
            where = where & by_position(np.isin(self.positions, change.position), array.ndim)
        return where

    def check_used(self) -> None:
        """Checks that each pattern has matched something.

        Raises:
            ValueError: one has not.
        """
        for pattern in self.changes:
            if pattern not in self.matched:
                raise ValueError(f"the patch of {pattern!r} was not used: {self.why_unmatched(pattern)}")

    def warn_of_no_effect(self) -> None:
        """Names each change that has made no difference."""
        for pattern in self.changes:
            if pattern not in self.effective:
                why = "it had these values" if pattern in self.reached else "no text had tokens at these positions"
                user = 4  # frames up: this one, patch, contextlib, and the block
                warnings.warn(f"the patch of {pattern!r} has changed nothing: {why}", stacklevel=user)

    def why_unmatched(self, pattern: str) -> str:
        """What to say of a pattern that has matched nothing."""
        if not self.names:
            return "no pass of the model ran in the block"
        if pattern.startswith("step"):
            return f"no array had such a name, and the last pass in the block was step{self.n_passes - 1}"
        return f"no array had such a name{did_you_mean(pattern, self.names)}"


def check_changeable(seen: Seen) -> None:
    """Checks that an array can be changed in place without changing anything else.

    Raises:
        ValueError: it is part of a parameter, of a past or of what a function was given, or read-only.
    """
    if seen.is_given:
        raise ValueError(
            f"{seen.name} cannot be patched: it is what its function was given, which would change, too; let the "
            "function return a copy"
        )
    if isinstance(seen.array, np.ndarray) and not seen.array.flags.writeable:
        raise ValueError(f"{seen.name} cannot be patched: it is read-only; let the function compute a copy")


def check_result(result: Any, seen: Seen, is_broadcast: bool = False) -> Array:
    """The result of a change, where the array is.

    Raises:
        TypeError: it is not an array of the same type.
        ValueError: it has another shape.
    """
    array = seen.array
    if isinstance(result, np.generic):  # what NumPy makes of an array without axes
        result = np.asarray(result)
    if not is_array(result):
        kind = type(result).__name__
        raise TypeError(
            f"the patch of {seen.name} must return an array, or None if it has changed the one given: not {kind}"
        )
    if result.dtype != array.dtype:
        raise TypeError(
            f"the patch of {seen.name} must be of its type, {array.dtype}, and is {result.dtype}: "
            f"astype({str(array.dtype)!r}) converts it"
        )
    if result.shape != array.shape and not (is_broadcast and broadcasts(result.shape, array.shape)):
        hint = ""
        if array.ndim > 2 and array.shape[-2] == 1:
            hint = (
                f"; in generation, each new token is a pass of its own, and 'step0/{seen.name}' is that of the prompt"
            )
        raise ValueError(
            f"the patch of {seen.name} must have its shape, {list(array.shape)}, and has {list(result.shape)}{hint}"
        )
    return np.asarray(result, like=array)
