"""Several threads of Python at once, each with its own part of the work and its matrix products on one core.

NumPy releases Python's lock while it computes, so the threads really run side by side. Unlike the threads of a matrix
product, they also share what is between the products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..params import Array
from .threads import on_one

T = TypeVar("T")

# How many numbers of an array are worked on at once: four arrays of 256 KB of float32 fit into the cache of a core.
PART = 2**16


def run_in_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Runs each task in a thread of its own, and returns their results in the order of the tasks.

    A single task runs in the calling thread, and its products use as many threads as they would.

    Raises:
        Whatever a task raises, after all of them have ended; the first of them in the order of the tasks.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    with on_one(), ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def for_each_part(
    work: Callable[..., T], arrays: Iterable[tuple[Array, ...]], n_threads: int, part: int = PART
) -> list[T]:
    """Calls `work` with one part after another of several arrays, so that what it computes stays in the cache.

    Args:
        work: takes a part of each of the arrays that belong together, as `[n]`, and may change them in place.
        arrays: arrays that belong together, all of the same shape and contiguous; and others.
        n_threads: how many threads work, each on parts of its own.
        part: the length of a part.

    Returns:
        What `work` returned, in the order of the parts, whichever thread ended first.
    """
    parts = [
        tuple(array.reshape(-1)[i : i + part] for array in together)
        for together in arrays
        for i in range(0, together[0].size, part)
    ]
    n_threads = max(1, min(n_threads, len(parts)))
    results = run_in_threads([lambda k=k: [work(*each) for each in parts[k::n_threads]] for k in range(n_threads)])  # type: ignore[misc]
    return [results[i % n_threads][i // n_threads] for i in range(len(parts))]


def add_to(total: Array, more: Array) -> None:
    """Adds one array to another, in place."""
    np.add(total, more, out=total)
