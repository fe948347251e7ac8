"""Safetensors files, as Hugging Face's models are kept in: arrays that are used from the disk as they lie there.

A file is: the header's length, 8 bytes, lowest first; the header, JSON, which gives each array's name,
type, shape and place; the arrays, one after the other. Mapped into memory it needs no reading at all:
the operating system brings in a page of it when it is used for the first time.

Source: the format's description at https://github.com/huggingface/safetensors.
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

from .files import read_json
from .params import Array

# The types that parameters may have, and what NumPy reads them as.
STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


class Tensor(NamedTuple):
    """An array in a file."""

    memory: mmap.mmap  # the file
    dtype: str  # as the file names it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int  # in bytes, from the beginning of the file
    end: int

    def read(self, dtype: npt.DTypeLike) -> Array:
        """The array: a view of the file if it has the dtype asked for, otherwise a converted copy.

        Writing to a view changes a private copy of the page in memory, never the file.

        Raises:
            ValueError: it is not of a float type.
        """
        if self.dtype not in STORED:
            raise ValueError(f"it has the type {self.dtype}, not a float type")
        array = np.frombuffer(self.memory, STORED[self.dtype], math.prod(self.shape), self.start).reshape(self.shape)
        if self.dtype == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return np.require(array, dtype, requirements=["ALIGNED", "WRITEABLE"])


def open_file(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of a safetensors file, and its arrays, of which none has been read yet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not in this format, or cut short.
    """
    with file.open("rb") as opened:
        try:
            memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise ValueError(
                f"{file} is empty: replace it with a sound copy, or delete it if it was converted from a checkpoint"
            ) from None
    try:
        data_start = 8 + int.from_bytes(memory[:8], "little")
        header = json.loads(memory[8:data_start])
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: Tensor(
                memory,
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                start=data_start + entry["data_offsets"][0],
                end=data_start + entry["data_offsets"][1],
            )
            for name, entry in header.items()
        }
        whole = isinstance(metadata, dict) and all(
            data_start <= start <= end <= len(memory)
            and all(type(n) is int and n >= 0 for n in (*shape, start, end))
            and (dtype not in STORED or end - start == math.prod(shape) * STORED[dtype].itemsize)
            for _, dtype, shape, start, end in tensors.values()
        )
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(
            f"{file} is not a safetensors file, or is damaged or cut short: replace it with a sound copy, "
            "or delete it if it was converted from a checkpoint"
        )
    return metadata, tensors


def open_shards(index: Path) -> dict[str, Tensor]:
    """The arrays of a model in several safetensors files, by the index that says which file each of them is in.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: the index is not one, or a file is damaged or lacks an array.
    """
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) and re.fullmatch(r"[\w.-]+\.safetensors", file) for file in weight_map.values()
    ):
        raise ValueError(f"{index} does not give a safetensors file of the same folder for each array, as weight_map")
    shards = {}
    for file in {*weight_map.values()}:
        try:
            _, shards[file] = open_file(index.with_name(file))
        except FileNotFoundError:
            raise FileNotFoundError(f"{file}, of which {index.name} speaks, is missing in {index.parent}") from None
    for name, file in weight_map.items():
        if name not in shards[file]:
            raise ValueError(f"{index.with_name(file)}: the array {name} is missing, which {index.name} says is there")
    return {name: shards[file][name] for name, file in weight_map.items()}


def write_file(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: npt.DTypeLike,
    read: Callable[[str], Array],
    metadata: Mapping[str, str],
) -> None:
    """Writes a safetensors file array by array, so that only one of them has to be in memory at a time.

    Args:
        file: the file.
        shapes: the shape of each array under its name.
        dtype: the type of them all: float32 or float64.
        read: gives the array of a name.
        metadata: what else the header is to say.

    Raises:
        OSError: the file cannot be written.
    """
    item = np.dtype(dtype).newbyteorder("<")
    names = {known: name for name, known in STORED.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * item.itemsize
        header[name] = {"dtype": names[item], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            out.write(np.ascontiguousarray(read(name), item).data)
