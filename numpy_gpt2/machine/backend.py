"""Where the arrays of a model are: in main memory, with NumPy, or on a GPU, with CuPy.

NumPy's functions also accept CuPy's arrays: `np.exp(x)` of such an array is computed on the GPU, and
`np.zeros(3, like=x)` creates one there. So the layers are the same for both. Token ids are NumPy arrays, and
`np.asarray(ids, like=...)` moves them to where the parameters are. `to_host` moves results, such as logits, back.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, cast

import numpy as np

from ..params import Array, HParams, Params, build, named_arrays

BACKENDS = ("numpy", "cupy")
VARIABLE = "NUMPY_GPT2_BACKEND"


def choose_backend(name: str | None = None) -> str:
    """The backend to use, after a check that it works.

    Args:
        name: `"numpy"` or `"cupy"`; by default the environment's `NUMPY_GPT2_BACKEND`, or else NumPy.

    Raises:
        ImportError: the backend is cupy, and CuPy is not installed or cannot use a GPU.
        ValueError: there is no such backend.
    """
    chosen = (os.environ.get(VARIABLE) or "numpy") if name is None else name
    if chosen not in BACKENDS:
        where = f", which {VARIABLE} names" if name is None else ""
        raise ValueError(f"there is no backend {chosen!r}{where}: it is one of {', '.join(BACKENDS)}")
    if chosen == "cupy":
        check_cupy()
    return chosen


def array_to(backend: str, array: Any) -> Array:
    """An array on a backend, which `choose_backend` has checked; the array itself if it is there already."""
    if backend == "numpy":
        return to_host(array)
    import cupy

    return cast(Array, cupy.asarray(array))


def params_to(backend: str, params: Params, hparams: HParams) -> Params:
    """Parameters on a backend, which `choose_backend` has checked."""
    arrays = dict(named_arrays(params))
    return build(hparams, lambda name, shape: array_to(backend, arrays[name]))


def to_host(array: Any) -> Array:
    """An array in main memory: the array itself if it is NumPy's, a copy if it is on a GPU."""
    return array if isinstance(array, np.ndarray) else array.get()


def check_cupy() -> None:
    """Checks that CuPy is installed and can use a GPU.

    Raises:
        ImportError: it is not installed, or cannot.
    """
    try:
        import cupy
    except Exception as error:  # an installed CuPy may fail in many ways, such as for want of a CUDA library
        is_missing = getattr(error, "name", "") == "cupy"
        cause = "" if is_missing else f" (the installed one cannot be imported: {reason(error)})"
        raise ImportError(f"the backend cupy needs CuPy{cause}: {how_to_install(cuda_version())}") from None
    try:
        int(cupy.arange(3).sum())
    except Exception as error:  # CUDA and CuPy have many types of errors
        advice = how_to_repair(cuda_version(), cupy.cuda.runtime.runtimeGetVersion() // 1000)
        raise ImportError(f"CuPy is installed, but cannot use a GPU ({reason(error)}): {advice}") from None


def cuda_version() -> int | None:
    """The major version of the newest CUDA, such as 12, that the GPU driver supports; None without a driver."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000  # 12040 stands for version 12.4


def how_to_install(cuda: int | None) -> str:
    """How to install a CuPy for the version of CUDA that the GPU driver supports.

    >>> how_to_install(12)
    'pip install "numpy_gpt2[cupy12]", since the driver of the GPU is for CUDA 12'
    """
    if cuda is None:
        return (
            "there is no driver of an NVIDIA GPU on this machine; on one that has it, "
            'pip install "numpy_gpt2[cupy13]", or "numpy_gpt2[cupy12]" if the driver is for CUDA 12'
        )
    if cuda < 12:
        return f"the driver of the GPU is for CUDA {cuda}, and CuPy needs 12 or newer: update the driver"
    return f'pip install "numpy_gpt2[cupy{min(cuda, 13)}]", since the driver of the GPU is for CUDA {cuda}'


def how_to_repair(driver_cuda: int | None, cupy_cuda: int) -> str:
    """What to do if CuPy is installed, but does not work.

    Args:
        driver_cuda: the version of CUDA that the GPU driver supports; None without a driver.
        cupy_cuda: the version of CUDA that CuPy was built for.

    >>> how_to_repair(12, 13)
    'it is made for CUDA 13: pip uninstall cupy-cuda13x, and pip install "numpy_gpt2[cupy12]", since the driver of the \
GPU is for CUDA 12'
    """
    if driver_cuda is None:
        return "there is no driver of an NVIDIA GPU on this machine"
    if driver_cuda < cupy_cuda:
        return (
            f"it is made for CUDA {cupy_cuda}: pip uninstall cupy-cuda{cupy_cuda}x, and {how_to_install(driver_cuda)}"
        )
    return f'is the GPU visible and free? If a library of CUDA is missing, pip install "numpy_gpt2[cupy{cupy_cuda}]"'


def reason(error: Exception) -> str:
    """The first line with words in the message of an error, or of the error that caused it."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines()]
    return next((line for line in lines if any(map(str.isalpha, line))), type(error).__name__)
