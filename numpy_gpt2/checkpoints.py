"""A model's folder: hyper-parameters and parameters, from files and back.

Such a folder holds `hparams.json` and the parameters in one or both of two forms:

    checkpoint, model.ckpt.*   OpenAI's own, which only TensorFlow can read
    model.safetensors          a JSON header and then plain arrays, which need no reading at all:
                               they are mapped into memory, and the disk is read when they are used

The first load of an OpenAI checkpoint writes `model.safetensors`, with the names of Hugging Face's
`GPT2LMHeadModel`, and a `config.json` for it; later loads take that.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .files import read_json, read_text, write_atomically
from .params import Array, HParams, Params, build, check_hparams, float_dtype, named_arrays

log = logging.getLogger(__name__)

CONVERTED_BY = "numpy_gpt2"  # marks a config.json that was written here


def read_hparams(folder: Path) -> HParams:
    """The hyper-parameters of the model in a folder, from its `hparams.json`.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
        ValueError: the file is not JSON, a number is missing, or the numbers describe no model.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    file = folder / "hparams.json"
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} must be a JSON object of names and numbers")
    if missing := [name for name in HParams._fields if name not in values]:
        raise ValueError(f"{file} does not say {', '.join(missing)}")
    hparams = HParams(**{name: values[name] for name in HParams._fields})
    try:
        check_hparams(hparams)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return hparams


def load_params(folder: Path, hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Params:
    """The parameters of the model in a folder; an OpenAI checkpoint is converted first, once.

    A `model.safetensors` that was not written here is used unchanged. One that was is written again
    when the checkpoint beside it has changed. Where the folder cannot be written, the model runs from
    memory, and a warning is logged.

    Raises:
        FileNotFoundError: there are no parameters in the folder.
        ImportError: a checkpoint has to be converted and TensorFlow is not installed.
        ValueError: the files are damaged or do not fit the hyper-parameters, or dtype is neither
            float32 nor float64.
    """
    dtype = float_dtype(dtype)
    converted = folder / "model.safetensors"
    if converted.is_file() and is_current(converted):
        return read_safetensors(converted, hparams, dtype)
    checkpoint = find_checkpoint(folder)
    if not index_file(checkpoint).exists():
        raise FileNotFoundError(
            f"{folder} holds no parameters: neither {converted.name} nor {index_file(checkpoint).name}"
        )
    params = read_tensorflow(checkpoint, hparams)
    try:
        write_config(folder / "config.json", hparams)
        write_safetensors(converted, params, origin(checkpoint))
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); the model runs from memory, and TensorFlow will have to read it again",
            converted,
            error.strerror or error,
        )
        arrays = dict(named_arrays(params))
        return build(hparams, lambda name, shape: arrays[name].astype(dtype, copy=False))
    return read_safetensors(converted, hparams, dtype)


# OpenAI's checkpoints


def find_checkpoint(folder: Path) -> Path:
    """The path that the names of the current checkpoint's files begin with. They need not exist.

    The file `checkpoint` names it; of a path, which may be another machine's, the last part counts.

    Raises:
        ValueError: there is such a file, and it names none.
    """
    state = folder / "checkpoint"
    if not state.exists():
        return folder / "model.ckpt"
    named = re.search(r'^model_checkpoint_path:\s*"(?:[^"\n]*[/\\])?([^"\n/\\]+)"', read_text(state), re.M)
    if not named:
        raise ValueError(f'{state} does not name a checkpoint, as in model_checkpoint_path: "model.ckpt"')
    return folder / named[1]


def index_file(checkpoint: Path) -> Path:
    """The file that lists a checkpoint's variables, with a checksum of each."""
    return checkpoint.with_name(checkpoint.name + ".index")


def read_tensorflow(checkpoint: Path, hparams: HParams) -> Params:
    """The parameters in an OpenAI checkpoint, read by TensorFlow and checked one by one.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
        ValueError: a variable is missing, has another shape or type, holds NaN or infinity, or cannot
            be read.
    """
    if not importlib.util.find_spec("tensorflow"):
        raise ImportError(
            f"{checkpoint} is a TensorFlow checkpoint, and reading it, which is done once, needs TensorFlow: "
            'pip install "numpy_gpt2[weights]"'
        )
    log.info("reading %s with TensorFlow, which is done once", checkpoint)
    with tensorflow_kept_quiet():
        try:
            import tensorflow as tf
        except Exception as error:  # a broken installation raises other things than ImportError, too
            raise ImportError(f"TensorFlow is installed, but cannot be imported: {error}") from error
        try:
            reader = tf.train.load_checkpoint(os.fspath(checkpoint))
            shapes = reader.get_variable_to_shape_map()
        except Exception as error:  # of several kinds, without a common base
            raise ValueError(
                f"{index_file(checkpoint)} is damaged or cut short ({type(error).__name__}): "
                "delete the checkpoint's files, and download them again"
            ) from error
        refuse_more_blocks(checkpoint, shapes, r"model/h(\d+)/", hparams)
        return build(hparams, lambda name, shape: read_variable(checkpoint, reader, shapes, name, shape))


def read_variable(
    checkpoint: Path, reader: Any, shapes: dict[str, list[int]], name: str, shape: tuple[int, ...]
) -> Array:
    """One parameter of an OpenAI checkpoint, by the reader that TensorFlow has for it.

    Raises:
        ValueError: as `read_tensorflow` says.
    """
    variable = f"model/{name}"
    stored = (1, *shape) if name.endswith("/w") else shape  # for OpenAI, a convolution of width 1
    if variable not in shapes:
        raise ValueError(f"{checkpoint}: the variable {variable} is missing")
    if tuple(shapes[variable]) != stored:
        raise ValueError(
            f"{checkpoint}: the variable {variable} has the shape {shapes[variable]}, "
            f"but hparams.json asks for {list(stored)}"
        )
    try:
        array = reader.get_tensor(variable)
    except Exception as error:  # of several kinds, without a common base
        raise ValueError(
            f"{checkpoint}: the variable {variable} cannot be read; the data file is missing, damaged or cut short "
            f"({type(error).__name__}): delete the checkpoint's files, and download them again"
        ) from error
    if array.dtype.kind != "f":
        raise ValueError(f"{checkpoint}: the variable {variable} is of the type {array.dtype}, not a float type")
    if not np.isfinite(array).all():
        raise ValueError(f"{checkpoint}: the variable {variable} holds NaN or infinity")
    return np.reshape(array, shape)


@contextlib.contextmanager
def tensorflow_kept_quiet() -> Iterator[None]:
    """Hides standard error, on which TensorFlow's C++ code greets, from the user."""
    try:
        standard_error = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


# Safetensors


class Tensor(NamedTuple):
    """Where a safetensors file holds an array, and of what kind."""

    dtype: str  # as the file names it: F32, BF16, ...
    shape: tuple[int, ...]
    start: int  # in bytes, from the beginning of the file
    end: int


# The types that parameters may have, and what NumPy reads them as.
STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def origin(checkpoint: Path) -> dict[str, str]:
    """The metadata that say which checkpoint a safetensors file was converted from."""
    index = index_file(checkpoint).read_bytes()
    return {"numpy_gpt2.index_size": str(len(index)), "numpy_gpt2.index_sha256": hashlib.sha256(index).hexdigest()}


def is_current(file: Path) -> bool:
    """Whether a safetensors file can be used: it was not converted here, or its checkpoint is the same or gone."""
    metadata, _ = read_header(file, map_file(file))
    if "numpy_gpt2.index_sha256" not in metadata:
        return True
    checkpoint = find_checkpoint(file.parent)
    return not index_file(checkpoint).exists() or origin(checkpoint).items() <= metadata.items()


def read_safetensors(file: Path, hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Params:
    """The parameters in a safetensors file with Hugging Face's names.

    Arrays that have the dtype asked for are not read but are views of the file, mapped into memory:
    loading takes no time, and processes share one copy. Writing to such an array changes a private
    copy of the page, never the file.

    Raises:
        ValueError: the file is damaged, an array is missing or has another shape or type, or the
            output head is not the token embeddings.
    """
    memory = map_file(file)
    _, tensors = read_header(file, memory)
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""

    def make(name: str, shape: tuple[int, ...]) -> Array:
        tensor_name = prefix + hugging_face_name(name)
        if tensor_name not in tensors:
            raise ValueError(f"{file}: the array {tensor_name} is missing")
        tensor = tensors[tensor_name]
        if tensor.shape != shape:
            raise ValueError(
                f"{file}: the array {tensor_name} has the shape {list(tensor.shape)}, "
                f"but the hyper-parameters ask for {list(shape)}"
            )
        if tensor.dtype not in STORED:
            raise ValueError(f"{file}: the array {tensor_name} has the type {tensor.dtype}, not a float type")
        return view(memory, tensor, dtype)

    refuse_more_blocks(file, tensors, rf"{re.escape(prefix)}h\.(\d+)\.", hparams)
    params = build(hparams, make)
    head = tensors.get("lm_head.weight")
    if head and (head.shape != params.wte.shape or not np.array_equal(view(memory, head, dtype), params.wte)):
        raise ValueError(f"{file}: lm_head.weight differs from wte, but GPT-2's output head is its token embeddings")
    return params


def map_file(file: Path) -> mmap.mmap:
    """A file as bytes in memory, copy-on-write.

    Raises:
        ValueError: the file is empty.
    """
    with file.open("rb") as opened:
        try:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise ValueError(
                f"{file} is empty: delete it, and download it again or let it be converted again"
            ) from None


def read_header(file: Path, memory: mmap.mmap) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of a safetensors file, and where its arrays are.

    The file is: the header's length, 8 bytes, lowest first; the header, JSON; the arrays.

    Raises:
        ValueError: the file is not in this format, or cut short.
    """
    try:
        data_start = 8 + int.from_bytes(memory[:8], "little")
        header = json.loads(memory[8:data_start])
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: Tensor(
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
            for dtype, shape, start, end in tensors.values()
        )
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(
            f"{file} is not a safetensors file, or is damaged or cut short: delete it, and download it again "
            "or let it be converted again"
        )
    return metadata, tensors


def view(memory: mmap.mmap, tensor: Tensor, dtype: npt.DTypeLike) -> Array:
    """An array in mapped memory: itself if it has the dtype asked for, otherwise a converted copy."""
    array = np.frombuffer(memory, STORED[tensor.dtype], math.prod(tensor.shape), tensor.start).reshape(tensor.shape)
    if tensor.dtype == "BF16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return np.require(array, dtype, requirements=["ALIGNED", "WRITEABLE"])


def hugging_face_name(name: str) -> str:
    """The name that a parameter has in Hugging Face's `GPT2Model`.

    >>> hugging_face_name("h0/attn/c_attn/w"), hugging_face_name("wte")
    ('h.0.attn.c_attn.weight', 'wte.weight')
    """
    if name in ("wte", "wpe"):
        return f"{name}.weight"
    *path, kind = name.split("/")
    return re.sub(r"^h(\d+)", r"h.\1", ".".join(path)) + {"w": ".weight", "g": ".weight", "b": ".bias"}[kind]


def write_safetensors(file: Path, params: Params, metadata: dict[str, str]) -> None:
    """Writes parameters under the names of Hugging Face's `GPT2LMHeadModel`, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {
        f"transformer.{hugging_face_name(name)}": np.ascontiguousarray(array) for name, array in named_arrays(params)
    }

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, {"format": "pt", **metadata})  # "pt": names and shapes are PyTorch's
        except SafetensorError as error:
            raise OSError(f"{error}") from error

    write_atomically(file, write)


def write_config(file: Path, hparams: HParams) -> None:
    """Writes the `config.json` that Hugging Face's `GPT2LMHeadModel` wants beside `model.safetensors`.

    A file that was not written here is left as it is.

    Raises:
        OSError: the file cannot be written.
    """
    if file.exists() and CONVERTED_BY not in file.read_text(encoding="utf-8", errors="replace"):
        return
    end_of_text = hparams.n_vocab - 1
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": hparams.n_vocab,
        "n_positions": hparams.n_ctx,
        "n_ctx": hparams.n_ctx,
        "n_embd": hparams.n_embd,
        "n_head": hparams.n_head,
        "n_layer": hparams.n_layer,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "converted_by": CONVERTED_BY,
    }
    text = json.dumps(config, indent=2) + "\n"
    write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def refuse_more_blocks(file: Path, names: Iterable[str], pattern: str, hparams: HParams) -> None:
    """Checks that no name is of a block beyond n_layer: without its last blocks a model runs, but writes nonsense.

    Raises:
        ValueError: there is such a name.
    """
    for name in names:
        block = re.match(pattern, name)
        if block and int(block[1]) >= hparams.n_layer:
            raise ValueError(f"{file}: {name} is of a block beyond the {hparams.n_layer} of the hyper-parameters")
