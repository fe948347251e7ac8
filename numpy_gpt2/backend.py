"""Where the model's arrays are: in main memory, with NumPy, or on a GPU, with CuPy.

CuPy's arrays answer to NumPy's own functions: `np.exp(x)` of such an array is computed on the GPU, and
`np.zeros(3, like=x)` makes one there. So the layers are the same for both, and know nothing of it. What
comes from outside (token ids) is NumPy's, and goes to where the parameters are by `np.asarray(ids,
like=...)`; what leaves (probabilities, logits) comes back by `to_host`.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, cast

import numpy as np

from .params import Array, HParams, Params, build, named_arrays

BACKENDS = ("numpy", "cupy")
VARIABLE = "NUMPY_GPT2_BACKEND"


def choose_backend(name: str | None = None) -> str:
    """The backend of this name, by default that of the environment's NUMPY_GPT2_BACKEND, or else numpy.

    Raises:
        ImportError: it is cupy, and CuPy is not installed, or does not find a GPU.
        ValueError: there is no such backend.
    """
    chosen = (os.environ.get(VARIABLE) or "numpy") if name is None else name
    if chosen not in BACKENDS:
        where = f", which {VARIABLE} names" if name is None else ""
        raise ValueError(f"there is no backend {chosen!r}{where}: it is one of {', '.join(BACKENDS)}")
    if chosen == "cupy":
        check_cupy()
    return chosen


def check_cupy() -> None:
    """Checks that CuPy is installed and can compute something.

    Raises:
        ImportError: it is not, or cannot.
    """
    try:
        import cupy
    except Exception as error:  # a library that it needs may be missing, or not fit
        why = "" if getattr(error, "name", "") == "cupy" else f" (the one here cannot be imported: {reason(error)})"
        raise ImportError(f"the backend cupy needs CuPy{why}: {how_to_install(cuda_version())}") from None
    try:
        int(cupy.arange(3).sum())
    except Exception as error:  # there are many that it may be
        advice = what_to_do(cuda_version(), cupy.cuda.runtime.runtimeGetVersion() // 1000)
        raise ImportError(f"CuPy is here, but cannot use a GPU ({reason(error)}): {advice}") from None


def cuda_version() -> int | None:
    """The newest CUDA version, 12 or the like, that the driver of this machine's GPU is for; None without a driver."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000  # 12040 is version 12.4


def how_to_install(cuda: int | None) -> str:
    """What to do to get a CuPy that works with this version of CUDA.

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


def what_to_do(cuda: int | None, cupys: int) -> str:
    """What to do where CuPy is installed, but does not work.

    Args:
        cuda: the version of CUDA that the driver is for.
        cupys: the one that CuPy was made for.

    >>> what_to_do(12, 13)
    'it is made for CUDA 13: pip uninstall cupy-cuda13x, and pip install "numpy_gpt2[cupy12]", since the driver of the \
GPU is for CUDA 12'
    """
    if cuda is None:
        return "there is no driver of an NVIDIA GPU on this machine"
    if cuda < cupys:
        return f"it is made for CUDA {cupys}: pip uninstall cupy-cuda{cupys}x, and {how_to_install(cuda)}"
    return f'is the GPU visible and free? If a library of CUDA is missing, pip install "numpy_gpt2[cupy{cupys}]"'


def reason(error: Exception) -> str:
    """The first line of what an error says, or of the one that it came from."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines()]
    return next((line for line in lines if any(map(str.isalpha, line))), type(error).__name__)


def array_to(backend: str, array: Any) -> Array:
    """An array where a backend computes, one that `choose_backend` has returned."""
    if backend == "numpy":
        return to_host(array)
    import cupy

    return cast(Array, cupy.asarray(array))


def params_to(backend: str, params: Params, hparams: HParams) -> Params:
    """Parameters where a backend computes."""
    arrays = dict(named_arrays(params))
    return build(hparams, lambda name, shape: array_to(backend, arrays[name]))


def to_host(array: Any) -> Array:
    """An array as NumPy's: itself if it is one, a copy in main memory if it is on a GPU."""
    return array if isinstance(array, np.ndarray) else array.get()
