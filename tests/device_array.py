"""A strict stand-in for CuPy's array type: NumPy inside, but as strict as a GPU.

Like CuPy's type, it implements the protocols `__array_ufunc__` and `__array_function__`, only for functions that CuPy
has. It refuses to be converted to a NumPy array implicitly, or to be mixed with one. It counts what is copied to the
host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# The functions of NumPy that the package may call with arrays on a GPU. CuPy has all of them.
SUPPORTED = set(
    "arange argmax argsort array_equal asarray concatenate copyto count_nonzero cumsum diagonal empty empty_like "
    "flatnonzero full max may_share_memory mean partition put_along_axis result_type searchsorted stack sum swapaxes "
    "take_along_axis where zeros zeros_like".split()
)
CREATE = {"arange", "asarray", "empty", "full", "zeros"}  # they accept NumPy arrays, which are copied


class Flags(NamedTuple):
    """The flags that CuPy's arrays have as well."""

    c_contiguous: bool
    f_contiguous: bool


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that behaves as if it were on a device."""

    called: list[tuple[str, Any, Any]] = []  # noqa: RUF012  the functions called: name, arguments, options
    crossed: list[int] = []  # noqa: RUF012  how many numbers were copied to the host each time

    def __init__(self, host: Any, base: DeviceArray | None = None) -> None:
        self._host = np.asarray(host)
        self.base = base

    # Properties.

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._host.dtype

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def flags(self) -> Flags:
        return Flags(self._host.flags.c_contiguous, self._host.flags.f_contiguous)

    @property
    def T(self) -> DeviceArray:  # noqa: N802
        return self._wrap(self._host.T)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    # Copies to the host.

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def get(self) -> Any:
        self.crossed.append(self.size)
        return self._host.copy()

    def __float__(self) -> float:
        self.crossed.append(self.size)
        return float(self._host)

    def __int__(self) -> int:
        self.crossed.append(self.size)
        return int(self._host)

    def __bool__(self) -> bool:
        self.crossed.append(self.size)
        return bool(self._host)

    # Computation on the device.

    def _wrap(self, result: Any, *others: DeviceArray) -> Any:
        if not isinstance(result, (np.ndarray, np.generic)):
            return result
        for source in (self, *others):
            if isinstance(result, np.ndarray) and result.size and np.may_share_memory(result, source._host):
                return DeviceArray(result, source if source.base is None else source.base)
        return DeviceArray(result)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        self.called.append((ufunc.__name__, inputs, options))
        result = ufunc(*map(bare, inputs), out=tuple(map(bare, out)) or None, **options)
        return out[0] if out else DeviceArray(result)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        name = function.__name__
        if name not in SUPPORTED:
            return NotImplemented
        self.called.append((name, args, options))
        if name == "asarray" and isinstance(args[0], DeviceArray):
            return args[0]
        if name in CREATE:
            return DeviceArray(function(*args, **options))
        if name == "partition" and type(args[1]) is not int:
            raise TypeError(f"'{type(args[1]).__name__}' object is not iterable")
        arrays = [arg for arg in args if isinstance(arg, DeviceArray)]
        return self._wrap(function(*map(bare, args), **{key: bare(value) for key, value in options.items()}), *arrays)

    def __getitem__(self, index: Any) -> Any:
        return self._wrap(self._host[bare(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[bare(index)] = bare(value)

    def __getattr__(self, name: str) -> Any:
        if name not in ("reshape", "astype", "copy", "max", "min", "sum", "mean", "std", "any", "all", "argmax"):
            raise AttributeError(name)
        return lambda *args, **options: self._wrap(getattr(self._host, name)(*args, **options))


def bare(value: Any) -> Any:
    """The NumPy array inside a DeviceArray, also within a list. A NumPy array itself is refused, as by CuPy."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (list, tuple)):
        return type(value)(bare(each) for each in value)
    return value


def arange(n: int) -> DeviceArray:
    return DeviceArray(np.arange(n))


class Runtime:
    """The part of CuPy's interface to the CUDA runtime that the package uses."""

    @staticmethod
    def getDeviceProperties(number: int) -> dict[str, bytes]:  # noqa: N802
        return {"name": b"a stand-in"}


class cuda:  # noqa: N801
    """The module `cupy.cuda`."""

    runtime = Runtime


asarray = DeviceArray  # so that this module can stand in for the module cupy
