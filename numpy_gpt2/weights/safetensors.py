"""Safetensors files, in which Hugging Face keeps models: arrays that are used in place, straight from the disk.

A file has three parts:

    8 bytes       the length of the header, least significant byte first
    the header    JSON: the dtype, shape and position of each array, by its name
    the data      the arrays, one after another, without a gap from the first byte to the last

A memory-mapped file need not be read: the operating system loads each page when it is first used.

Source: the description of the format at https://github.com/huggingface/safetensors, whose own library refuses what is
refused here.
"""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..machine.files import read_object
from ..params import Array

# The floating-point types of the format, and the dtypes as which NumPy reads them.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16
}

# The bits that an element of each type takes.
BITS = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0", "I8", "U8"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
LONGEST_HEADER = 100_000_000  # in bytes, by the format


class Tensor(NamedTuple):
    """An array in a memory-mapped file."""

    memory: mmap.mmap  # the whole file
    dtype: str  # as the format names it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int  # offset of the first byte in the file
    end: int  # offset after the last byte

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype in which NumPy has the array, if it is one of `DTYPES`."""
        return DTYPES[self.dtype].newbyteorder("=")

    def read(self, dtype: npt.DTypeLike) -> Array:
        """The array: a view of the file if it has this dtype there, otherwise a converted copy.

        Writing to a view changes a private copy of the page in memory, never the file.

        Raises:
            ValueError: the array does not hold floating-point numbers.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"it has the type {self.dtype}, not a float type")
        array = np.frombuffer(self.memory, DTYPES[self.dtype], math.prod(self.shape), self.start).reshape(self.shape)
        if self.dtype == "BF16":  # a bfloat16 is the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return np.require(array, dtype, requirements=["ALIGNED", "WRITEABLE"])


def open_file(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Opens a safetensors file.

    Returns:
        The metadata, and the arrays by name, none of which has been read yet.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a safetensors file, is cut short, or holds no arrays.
    """
    with file.open("rb") as opened:
        try:
            memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise ValueError(
                f"{file} is empty: replace it with a sound copy, or delete it if it was converted from a checkpoint"
            ) from None
    try:
        metadata, tensors = read_header(memory)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f"{file} is not a safetensors file, or is damaged or cut short: replace it with a sound copy, "
            "or delete it if it was converted from a checkpoint"
        ) from None
    if not tensors:
        raise ValueError(f"{file} holds no arrays: replace it with the file of a model")
    return metadata, tensors


def read_header(memory: mmap.mmap) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads the header of a safetensors file, as strictly as the format's own library.

    Returns:
        As `open_file`.

    Raises:
        ValueError, RecursionError, TypeError, KeyError, AttributeError: this is not such a file, or it is damaged.
    """
    data_start = 8 + int.from_bytes(memory[:8], "little")
    if data_start > min(len(memory), 8 + LONGEST_HEADER):  # before anything is read, which may be all of a large file
        raise ValueError("the header is cut short")
    text = str(memoryview(memory)[8:data_start], "utf-8")
    header = json.loads(text, object_pairs_hook=unique_names, parse_int=natural_number)
    metadata = header.pop("__metadata__", {})
    "".join([*header, *metadata, *metadata.values()]).encode()  # raises an error if these are not all texts in UTF-8
    tensors = {name: read_entry(memory, data_start, **entry) for name, entry in header.items()}
    end = data_start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != end or 8 * (tensor.end - end) != math.prod(tensor.shape) * BITS[tensor.dtype]:
            raise ValueError("an array has a gap before it, overlaps another, or has another size than its shape")
        end = tensor.end
    if end != len(memory):
        raise ValueError("the arrays are not all of the data")
    return metadata, tensors


def read_entry(memory: mmap.mmap, data_start: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """An array, by the names and values of its entry in the header.

    Raises:
        ValueError, TypeError: the entry is malformed.
    """
    start, end = data_offsets
    if not isinstance(shape, list) or not isinstance(data_offsets, list):
        raise ValueError("not a list")
    if not all(type(n) is int for n in (*shape, start, end)):
        raise ValueError("not a whole number")
    return Tensor(memory, dtype, tuple(shape), data_start + start, data_start + end)


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as a dictionary.

    Raises:
        ValueError: it has a name twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("there are two entries of the same name")
    return values


def natural_number(text: str) -> int:
    """A whole number of JSON that fits into 64 bits without a sign.

    Raises:
        ValueError: it is negative, or too large.
    """
    number = int(text)
    if text.startswith("-") or number >= 2**64:
        raise ValueError(f"{text[:20]} is no number of 64 bits")
    return number


def read_index(index: Path) -> dict[str, str]:
    """Reads the JSON file that gives the safetensors file of each array of a model that is split into several.

    Returns:
        The names of the files, by that of the array; at least one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file says something else.
    """
    weight_map = read_object(index).get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map) or not all(
        isinstance(name, str) and re.fullmatch(r"\w[\w.-]*\.safetensors", name) for name in weight_map.values()
    ):
        raise ValueError(f"{index} does not give a safetensors file of the same folder for each array, as weight_map")
    return weight_map


def open_shards(index: Path) -> dict[str, Tensor]:
    """Opens the safetensors files of a model that is split into several.

    Args:
        index: the JSON file that gives the file of each array, as for `read_index`.

    Returns:
        The arrays of all files, by name.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: the index is malformed, or a file is damaged, lacks an array, or holds one that is not listed.
    """
    weight_map = read_index(index)
    shards = {}
    for name in {*weight_map.values()}:
        try:
            _, shards[name] = open_file(index.with_name(name))
        except FileNotFoundError:
            raise FileNotFoundError(f"{name}, which {index.name} lists, is missing in {index.parent}") from None
    for array, name in weight_map.items():
        if array not in shards[name]:
            raise ValueError(f"{index.with_name(name)}: the array {array} is missing, which {index.name} lists there")
    for name, arrays in shards.items():
        if others := [array for array in arrays if weight_map.get(array) != name]:
            raise ValueError(
                f"{index.with_name(name)} holds the array {others[0]}, which {index.name} does not list there"
            )
    return {array: shards[name][array] for array, name in weight_map.items()}


def write_file(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: npt.DTypeLike,
    read: Callable[[str], Array],
    metadata: Mapping[str, str],
) -> None:
    """Writes a safetensors file, array by array, so that only one of them need be in memory at a time.

    Args:
        file: the file.
        shapes: the shape of each array, by name.
        dtype: the dtype to write all arrays in: float16, float32 or float64.
        read: called with one name after another; returns the array.
        metadata: entries for the metadata in the header.

    Raises:
        OSError: the file cannot be written.
    """
    little_endian = np.dtype(dtype).newbyteorder("<")
    type_names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * little_endian.itemsize
        header[name] = {"dtype": type_names[little_endian], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # spaces, so that the data is aligned
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            opened.write(np.ascontiguousarray(read(name), little_endian).data)
