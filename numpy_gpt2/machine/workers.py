"""Several threads of Python at once, each with its own part of the work and its matrix products on one core.

NumPy releases Python's lock while it computes, so the threads really run side by side. Unlike the threads of a matrix
product, they also share what is between the products.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from ..params import Array
from .threads import on_one

T = TypeVar("T")

# How many numbers of an array are worked on at once: four arrays of 256 KB of float32 fit into the cache of a core.
PART = 2**16


_thread = threading.local()  # whether this thread is one of a pool


def run_in_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Runs each task in a thread of its own, and returns their results in the order of the tasks.

    A single task runs in the calling thread, and its products use as many threads as they would. Within a task, other
    tasks run one after another.

    Raises:
        Whatever a task raises, after all of them have ended; the first of them in the order of the tasks.
    """
    if len(tasks) == 1 or getattr(_thread, "is_worker", False):
        return [task() for task in tasks]
    with on_one():
        futures: list[Future[T]] = []
        interrupt: KeyboardInterrupt | None = None
        while len(futures) < len(tasks) or not all(future.done() for future in futures):
            try:  # Ctrl-C, even twice, must wait for the tasks: what they change in place is whole only then
                for task in tasks[len(futures) :]:
                    futures.append(pool(len(tasks)).submit(task))
                wait(futures)
            except KeyboardInterrupt as again:
                interrupt = again
        if interrupt:
            raise interrupt
        return [future.result() for future in futures]


@functools.cache
def pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that wait for tasks. They stay, since the C library keeps the memory that a thread has freed for it."""
    return ThreadPoolExecutor(n_threads, initializer=lambda: setattr(_thread, "is_worker", True))


if hasattr(os, "register_at_fork"):  # a process that is forked has the pools, but not their threads
    os.register_at_fork(after_in_child=pool.cache_clear)


def for_each_part(
    work: Callable[..., T], arrays: Iterable[tuple[Array, ...]], n_threads: int, part: int = PART
) -> list[T]:
    """Calls `work` with one part after another of several arrays, so that what it computes stays in the cache.

    Args:
        work: takes a part of each of the arrays that belong together, and may change them in place.
        arrays: arrays that belong together, all of the same shape; and others. An array that is not
            C-contiguous is a single part.
        n_threads: how many threads work, each on parts of its own.
        part: the length of a part.

    Returns:
        What `work` returned, in the order of the parts, whichever thread ended first.
    """
    parts: list[tuple[Array, ...]] = []
    for together in arrays:
        if all(array.flags.c_contiguous for array in together):
            flat = [array.reshape(-1) for array in together]
            parts += [tuple(array[i : i + part] for array in flat) for i in range(0, flat[0].size, part)]
        else:
            parts.append(together)
    n_threads = max(1, min(n_threads, len(parts)))
    results = run_in_threads([lambda k=k: [work(*each) for each in parts[k::n_threads]] for k in range(n_threads)])  # type: ignore[misc]
    return [results[i % n_threads][i // n_threads] for i in range(len(parts))]


def add_to(total: Array, more: Array) -> None:
    """Adds one array to another, in place."""
    np.add(total, more, out=total)
