"""How many threads NumPy's matrix products use."""

from __future__ import annotations

import logging
from numbers import Integral
from typing import Any

import numpy  # noqa: F401  (threadpoolctl finds only libraries that are loaded, and this loads NumPy's)

log = logging.getLogger(__name__)


def set_threads(n: int) -> None:
    """Makes matrix products use n threads from now on, in the whole process.

    Where NumPy multiplies with a library whose threads cannot be set at run time, such as Accelerate on macOS,
    nothing changes and a warning is logged.

    Raises:
        ValueError: n is not a positive whole number.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"the number of threads must be 1 or more, not {n!r}")
    libraries = blas_libraries()
    if not libraries:
        log.warning("the number of threads stays as it is: NumPy multiplies with a library that cannot be told it")
    for library in libraries:
        library.set_num_threads(min(int(n), 2**15))  # a C int; the library itself takes no more than it can use


def count_threads() -> int | None:
    """How many threads matrix products use, or None where NumPy's library cannot be asked."""
    return max((n for library in blas_libraries() if (n := library.num_threads)), default=None)


def blas_libraries() -> list[Any]:
    """The libraries for matrix products that are loaded."""
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)
