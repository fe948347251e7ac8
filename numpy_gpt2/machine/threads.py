"""How many threads NumPy's matrix products use.

The number belongs to the whole process. It is the user's: whatever changes it here changes it back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, TypeVar

import numpy  # noqa: F401  (threadpoolctl finds only libraries that are loaded, and this loads NumPy's)

log = logging.getLogger(__name__)

# A model with fewer parameters computes on one thread, unless `set_threads` says otherwise. One with six million made
# 0.94 of the tokens a second of two threads on two idle cores of an Intel server, twice as many while
# another process kept one core busy, and 2.4 times as many beside a second run of itself.
SMALL = 2**24

T = TypeVar("T")


@dataclass
class State:
    """What the process has been told."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_set: bool = False  # whether the user has set the number
    within: dict[object, int] = field(default_factory=dict)  # each that is within `on_one`, and its thread
    numbers: list[int | None] | None = None  # while each library uses one thread: the numbers before


_state = State()


def set_threads(n: int) -> None:
    """Makes matrix products use n threads from now on, in the whole process and for models of every size.

    Where NumPy multiplies with a library whose threads cannot be set at run time, such as Accelerate on macOS,
    nothing changes and a warning is logged.

    Raises:
        ValueError: n is not a positive whole number.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"the number of threads must be 1 or more, not {n!r}")
    if not blas_libraries():
        log.warning("the number of threads stays as it is: NumPy multiplies with a library that cannot be told it")
    n = min(int(n), 2**15)  # a C int; the library itself takes no more than it can use
    numbers: list[int | None] = [n] * len(blas_libraries())
    with _state.lock:
        _state.is_set = True
        if _state.numbers is None:
            tell(numbers)
        else:
            _state.numbers = numbers


def count_threads() -> int | None:
    """How many threads matrix products use outside of `on_one`, or None where NumPy's library cannot be asked."""
    with _state.lock:
        numbers = ask() if _state.numbers is None else _state.numbers
    return max((n for n in numbers if n), default=None)


def is_small(n_parameters: int) -> bool:
    """Whether a model of this size computes on one thread."""
    return n_parameters < SMALL and not _state.is_set


def count_threads_for(n_parameters: int) -> int | None:
    """The same for a model of this size."""
    return 1 if is_small(n_parameters) else count_threads()


@contextlib.contextmanager
def on_one() -> Iterator[None]:
    """Within this context, each matrix product of the process uses one thread.

    Several threads may be within it at once; when the last of them leaves, the number is what it was before.
    """
    me = object()
    try:
        with _state.lock:
            _state.within[me] = threading.get_ident()
            settle()
        yield
    finally:
        with _state.lock:
            _state.within.pop(me, None)
            settle()


def settle() -> None:
    """Tells the libraries what holds now: one thread if anything is within `on_one`, otherwise the numbers before."""
    if _state.within and _state.numbers is None:
        _state.numbers = ask()
        tell([n and 1 for n in _state.numbers])
    elif not _state.within and _state.numbers is not None:
        tell(_state.numbers)
        _state.numbers = None


def fitting(n_parameters: int) -> contextlib.AbstractContextManager[None]:
    """The context for passes of a model of this size: `on_one` for a small one, unless the user has set a number.

    The products of a small model are too short to gain from several threads. And the threads of a product wait for each
    other: when another process takes one core for a moment, all of them stand still.
    """
    with _state.lock:
        # Ctrl-C at the wrong moment keeps its thread from leaving `on_one`. A pass begins outside of it.
        me = threading.get_ident()
        _state.within = {each: thread for each, thread in _state.within.items() if thread != me}
        settle()
    return on_one() if is_small(n_parameters) else contextlib.nullcontext()


def fitted(steps: Iterator[T], n_parameters: int) -> Iterator[T]:
    """The same steps, each of them taken within `fitting`, so that the number is the user's between them."""
    while True:
        with fitting(n_parameters):
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


@functools.cache
def blas_libraries() -> list[Any]:
    """The libraries for matrix products that are loaded; none where threads cannot be, as in Pyodide."""
    if sys.platform == "emscripten":
        return []
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def ask() -> list[int | None]:
    """The number of threads of each library; None for one that does not say."""
    return [library.num_threads for library in blas_libraries()]


def tell(numbers: Sequence[int | None]) -> None:
    """Sets the number of threads of each library that says how many it uses."""
    for library, n in zip(blas_libraries(), numbers, strict=True):
        if n:
            library.set_num_threads(n)
