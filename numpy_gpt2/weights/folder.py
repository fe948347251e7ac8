"""A model's folder: its parameters, from files to memory and back.

A folder has one of two layouts:

    hparams.json, checkpoint, model.ckpt.*    OpenAI's, which only TensorFlow can read
    config.json, model.safetensors            Hugging Face's, which is memory-mapped and so loads at once

When an OpenAI checkpoint is loaded for the first time, the model is also saved in Hugging Face's layout, in the
same folder. Later loads use that. `config.py` reads the hyperparameters, `vocabulary.py` the vocabulary.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..machine.files import (
    T,
    current_folder,
    is_settled,
    locked,
    read_unchanged,
    replace_files,
    settle,
    write_atomically,
)
from ..params import Array, HParams, Linear, Params, build, count_params, named_arrays, shapes
from ..text.added_tokens import ADDED, CONFIG
from ..text.special_ids import SpecialIds
from ..text.vocabulary import ONE_FILE, OPENAI, TWO_FILES, find_vocabulary
from ..tokenizer import Tokenizer
from . import tensorflow
from .config import check_multiple_choice, is_tied, is_written_here, write_configs
from .safetensors import Tensor, open_file, open_shards, read_index, write_file

log = logging.getLogger(__name__)

TENSORS = "model.safetensors"
INDEX = f"{TENSORS}.index.json"  # lists the files of a model in several

TRAINING = "training.safetensors"  # what `training/` needs to go on with the model

# The files that `save` writes, some of them only for a model with a vocabulary, or one that is being trained.
WRITTEN_FILES = (TENSORS, "config.json", CONFIG, *TWO_FILES, ADDED, TRAINING)

# The multiple-choice head of GPT2DoubleHeadsModel.
SUMMARY = "multiple_choice_head.summary"

# Arrays that are not parameters of the language model: that head, and the causal masks in older files.
NOT_PARAMETERS = re.compile(rf"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|{SUMMARY}\.(weight|bias)")

# The number of a block, in the name of an array in either layout.
BLOCK_NUMBER = re.compile(r"(?:model/h|(?:transformer\.)?h\.)(\d+)")


# Loading


def read_whole(folder: Path, read: Callable[[Path], T]) -> T:
    """Reads the model in a folder to which another process may be saving one: all of it from the old one or the new.

    What an interrupted `save` left is completed or discarded first, unless the folder cannot be written.

    Args:
        folder: the folder.
        read: called with the folder in which the files are; called again if they were replaced meanwhile.

    Returns:
        What `read` returns.

    Raises:
        Whatever `read` raises, about a folder that stays the same.
    """
    if not is_settled(folder):
        with contextlib.suppress(OSError), locked(folder, wait=False):
            settle(folder, WRITTEN_FILES)
    return read_unchanged(folder, read, (TENSORS,))


def load_params(
    folder: Path, hparams: HParams, tokenizer: Tokenizer | None, dtype: npt.DTypeLike = np.float32
) -> Params:
    """Loads the parameters of the model in a folder. An OpenAI checkpoint is converted first, once.

    Arrays that have the right dtype on disk are not read, but are views of the memory-mapped file. So loading
    takes no time, and several processes share one copy.

    A `model.safetensors` that came with the model is used as it is. One that was converted here is converted
    again if the checkpoint beside it has changed since. If the folder cannot be written, the model runs from
    memory, and a warning is logged.

    Args:
        folder: the folder.
        hparams: the hyperparameters of the model.
        tokenizer: its tokenizer, to be saved with a converted model; None for a model without a vocabulary.
        dtype: the dtype of the result, float32 or float64.

    Raises:
        FileNotFoundError: the folder holds no parameters.
        ImportError: a checkpoint must be converted, and TensorFlow is not installed or does not work.
        ValueError: a file is damaged or does not fit the hyperparameters, or the output head is not the token
            embeddings.
    """
    file, tensors = find_tensors(folder)
    if tensors:
        if "lm_head.weight" not in tensors and not is_tied(folder):
            raise ValueError(
                f"{file} has no output head, lm_head.weight, but config.json says tie_word_embeddings: false, so the "
                "head is not the token embeddings"
            )
        return read_tensors(file, tensors, hparams, dtype)
    checkpoint = tensorflow.find_checkpoint(folder)
    if not tensorflow.index_file(checkpoint).exists():
        refuse_folder(folder)
    try:
        convert(folder, checkpoint, hparams, tokenizer)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); the model runs from memory, and TensorFlow must read the checkpoint each time",
            file,
            error.strerror or error,
        )
        reader = open_checkpoint(checkpoint, hparams)
        return build(hparams, lambda name, shape: reader.read(name, shape).astype(dtype, copy=False))
    return read_tensors(file, open_file(file)[1], hparams, dtype)


def load_multiple_choice_head(folder: Path, hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Linear | None:
    """Loads the multiple-choice head of a `GPT2DoubleHeadsModel`, a map from n_embd numbers to one.

    Returns:
        The head, or None if the model has none.

    Raises:
        FileNotFoundError: the model has a head, but no `config.json` to describe it.
        ValueError: the head cannot be computed here, or a file is damaged.
    """
    file, tensors = find_tensors(folder)
    weight, bias = f"{SUMMARY}.weight", f"{SUMMARY}.bias"
    if weight not in tensors:
        return None
    check_multiple_choice(folder)
    for name, shape in ((weight, (1, hparams.n_embd)), (bias, (1,))):
        if name not in tensors or tensors[name].shape != shape:
            raise ValueError(f"{file}: a multiple-choice head has an array {name} of the shape {list(shape)}")
    return Linear(w=tensors[weight].read(dtype).T, b=tensors[bias].read(dtype))


def find_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Finds the arrays in the safetensors files of a folder.

    Returns:
        The file to name in error messages, and the arrays by name; none if a checkpoint must be converted first.

    Raises:
        FileNotFoundError: one of several safetensors files is missing.
        ValueError: a file is damaged.
    """
    file, index = folder / TENSORS, folder / INDEX
    if not (tensors := current_tensors(folder)) and index.exists():
        return index, open_shards(index)
    return file, tensors


def current_tensors(folder: Path) -> dict[str, Tensor]:
    """Finds the arrays in the `model.safetensors` of a folder.

    Returns:
        The arrays by name; none if the file does not exist, or was converted from an earlier checkpoint than
        the one in the folder.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / TENSORS
    if not file.exists():
        return {}
    metadata, tensors = open_file(file)
    if "numpy_gpt2.index_sha256" in metadata:
        checkpoint = tensorflow.find_checkpoint(folder)
        if (
            tensorflow.index_file(checkpoint).exists()
            and not tensorflow.fingerprint(checkpoint).items() <= metadata.items()
        ):
            return {}
    return tensors


def refuse_folder(folder: Path) -> NoReturn:
    """Reports that no parameters can be loaded from a folder.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there are, but as a pickle.
    """
    for pickle in sorted(folder.glob("pytorch_model*.bin")):
        raise ValueError(
            f"{pickle} is a Python pickle, which can run any program when it is opened, and so is not opened here: "
            "with transformers, from_pretrained and then save_pretrained make a model.safetensors of it"
        )
    index = tensorflow.index_file(tensorflow.find_checkpoint(folder))
    raise FileNotFoundError(f"{folder} holds no parameters: neither model.safetensors nor {index.name}")


def open_checkpoint(checkpoint: Path, hparams: HParams) -> tensorflow.CheckpointReader:
    """Opens an OpenAI checkpoint, and checks the names and shapes of its arrays.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
        ValueError: the checkpoint is damaged, or `check_arrays` rejects it.
    """
    reader = tensorflow.CheckpointReader(checkpoint)
    check_arrays(checkpoint, reader.shapes, hparams, tensorflow.checkpoint_spelling)
    return reader


def read_tensors(file: Path, tensors: dict[str, Tensor], hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Params:
    """Reads the parameters from arrays with the names of Hugging Face's `GPT2Model` or `GPT2LMHeadModel`.

    Args:
        file: the file to name in an error message.
        tensors: the arrays by name.
        hparams: the hyperparameters of the model.
        dtype: the dtype of the result, float32 or float64.

    Raises:
        ValueError: `check_arrays` rejects the arrays, one of them does not hold floating-point numbers or
            belongs to another kind of model, or the output head is not the token embeddings.
    """
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""

    def spell(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        return prefix + hugging_face_name(name), shape

    def read(name: str) -> Array:
        try:
            return tensors[name].read(dtype)
        except ValueError as error:
            raise ValueError(f"{file}: the array {name}: {error}") from None

    check_arrays(file, {name: tensor.shape for name, tensor in tensors.items()}, hparams, spell)
    known = {spell(*parameter)[0] for parameter in shapes(hparams).items()} | {"lm_head.weight"}
    if others := [name for name in tensors if name not in known and not NOT_PARAMETERS.fullmatch(name)]:
        raise ValueError(f"{file}: the array {others[0]} is no part of GPT-2, so this is another kind of model")
    params = build(hparams, lambda name, shape: read(spell(name, shape)[0]))
    if "lm_head.weight" in tensors and not np.array_equal(read("lm_head.weight"), params.wte):
        raise ValueError(f"{file}: lm_head.weight differs from wte, but GPT-2's output head is its token embeddings")
    return params


def check_arrays(
    file: Path,
    actual: Mapping[str, tuple[int, ...]],
    hparams: HParams,
    spell: Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]],
) -> None:
    """Checks that a file has every array of a model with these hyperparameters, in the right shape.

    Args:
        file: the file to name in an error message.
        actual: the shape of each array in the file.
        hparams: the hyperparameters.
        spell: turns the name and shape of a parameter into those of the array in the file.

    Raises:
        ValueError: an array is missing or has another shape, or the number of blocks differs: a model without
            its last blocks would run, but write nonsense.
    """
    blocks = {match[1] for name in actual if (match := BLOCK_NUMBER.match(name))}
    if len(blocks) != hparams.n_layer:  # checked before all names are made, since n_layer may be any number
        raise ValueError(f"{file} holds {len(blocks)} blocks, but the hyperparameters say {hparams.n_layer}")
    for name, shape in (spell(*parameter) for parameter in shapes(hparams).items()):
        if name not in actual:
            raise ValueError(f"{file}: the array {name} is missing")
        if actual[name] != shape:
            raise ValueError(
                f"{file}: the array {name} has the shape {list(actual[name])}, "
                f"but the hyperparameters ask for {list(shape)}"
            )


def hugging_face_name(name: str) -> str:
    """The name of a parameter in Hugging Face's `GPT2Model`; in `GPT2LMHeadModel`, it is preceded by `transformer.`.

    >>> hugging_face_name("h0/attn/c_attn/w"), hugging_face_name("wte")
    ('h.0.attn.c_attn.weight', 'wte.weight')
    """
    if name in ("wte", "wpe"):
        return f"{name}.weight"
    *path, kind = name.split("/")
    return re.sub(r"^h(\d+)", r"h.\1", ".".join(path)) + {"w": ".weight", "g": ".weight", "b": ".bias"}[kind]


# Saving


def save(
    folder: Path,
    hparams: HParams,
    params: Params,
    dtype: np.dtype[Any],
    tokenizer: Tokenizer | None,
    head: Linear | None = None,
    special_ids: SpecialIds | None = None,
    also: Callable[[Path], object] = lambda staging: None,
) -> None:
    """Saves a model in Hugging Face's layout, for `from_pretrained` and `load_params`.

    The folder is created if it does not exist. A model that was saved to it before is replaced: at every moment,
    `read_whole` finds the one or the other.

    Args:
        folder: the folder.
        hparams: the hyperparameters.
        params: the parameters.
        dtype: in which the numbers are written: float16, float32 or float64.
        tokenizer: the tokenizer; None for a model without a vocabulary.
        head: the multiple-choice head, if the model has one.
        special_ids: the tokens that have a use, as for `write_configs`.
        also: writes another of `WRITTEN_FILES` to the folder that it is given.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder holds another model, or a vocabulary, that was not saved here; or a number is too large
            for the dtype.
    """
    arrays = dict(named_arrays(params))
    check_range({**arrays, **({f"{SUMMARY}/w": head.w, f"{SUMMARY}/b": head.b} if head else {})}, dtype)

    def write(staging: Path) -> None:
        write_tensors(staging / TENSORS, hparams, lambda name, _: arrays[name], dtype, {}, head)
        write_configs(staging, hparams, tokenizer, dtype, head is not None, special_ids)
        also(staging)

    check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        settle(folder, WRITTEN_FILES)
        replace_files(folder, write, WRITTEN_FILES)


def check_range(arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> None:
    """Checks that numbers do not become infinity in another dtype.

    Raises:
        ValueError: one of them does.
    """
    largest = float(np.finfo(dtype).max)
    for name, array in arrays.items():
        if array.dtype.itemsize > dtype.itemsize and np.any(np.isfinite(array) & (np.abs(array) > largest)):
            is_in = f"the range of {dtype}: save it in {array.dtype}"
            raise ValueError(f"{name} has a number outside ±{largest:g}, {is_in}")


def check_replaceable(folder: Path) -> None:
    """Checks that a folder holds no model, or one that `save` wrote.

    Raises:
        ValueError: it holds another model, or a vocabulary, that was not saved here.
    """
    config = folder / "config.json"
    names = ("hparams.json", "checkpoint", *OPENAI, *ONE_FILE, "generation_config.json")
    foreign = [folder / name for name in names if (folder / name).exists()]
    if not config.exists() or not is_written_here(config):
        written = (folder / name for name in WRITTEN_FILES)
        foreign += [file for file in (config, *sorted(folder.glob("model.*")), *written) if file.exists()]
    if foreign:
        raise ValueError(
            f"{folder} holds another model or its vocabulary ({foreign[0].name}): save to a folder of its own"
        )


def convert(folder: Path, checkpoint: Path, hparams: HParams, tokenizer: Tokenizer | None) -> None:
    """Saves the model of an OpenAI checkpoint in Hugging Face's layout, in the same folder.

    Only one array at a time is in memory. The parameters get their name last, so a process that is killed leaves the
    checkpoint to be converted again. A `config.json` that was not written here stays as it is.

    Raises:
        ImportError, ValueError: as for `open_checkpoint`.
        OSError: the folder cannot be written.
    """
    from tqdm import tqdm

    with locked(folder):
        if current_tensors(folder):  # another process has converted the checkpoint in the meantime
            return
        reader = open_checkpoint(checkpoint, hparams)
        log.info("converting %s to model.safetensors, which is done once", checkpoint)
        size = 4 * count_params(hparams)
        # disable=None: the bar is shown only on a terminal
        with tqdm(desc="converting", total=size, unit="B", unit_scale=True, disable=None) as progress:

            def read(name: str, shape: tuple[int, ...]) -> Array:
                array = reader.read(name, shape)
                progress.update(4 * array.size)
                return array

            def write(temporary: Path) -> None:
                write_tensors(temporary, hparams, read, np.float32, tensorflow.fingerprint(checkpoint))
                config = folder / "config.json"
                if not config.exists() or is_written_here(config):
                    write_configs(folder, hparams, tokenizer, np.float32)

            write_atomically(folder / TENSORS, write)


def write_tensors(
    file: Path,
    hparams: HParams,
    read: Callable[[str, tuple[int, ...]], Array],
    dtype: npt.DTypeLike,
    metadata: Mapping[str, str],
    head: Linear | None = None,
) -> None:
    """Writes the parameters of a model as `GPT2LMHeadModel` or, with a second head, `GPT2DoubleHeadsModel` does.

    Args:
        file: the safetensors file.
        hparams: the hyperparameters.
        read: called with the name and shape of one parameter after another; returns its array.
        dtype: the dtype to write: float16, float32 or float64.
        metadata: entries for the metadata of the safetensors file.
        head: the multiple-choice head, if the model has one.

    Raises:
        OSError: the file cannot be written.
    """
    parameters = {f"transformer.{hugging_face_name(name)}": (name, shape) for name, shape in shapes(hparams).items()}
    head_arrays = {f"{SUMMARY}.weight": head.w.T, f"{SUMMARY}.bias": head.b} if head else {}
    write_file(
        file,
        {name: shape for name, (_, shape) in parameters.items()}
        | {name: array.shape for name, array in head_arrays.items()},
        dtype,
        lambda name: head_arrays[name] if name in head_arrays else read(*parameters[name]),
        {"format": "pt", **metadata},  # "pt": the names and shapes are those of the PyTorch model
    )


# What a folder holds


def holds_model(folder: Path) -> bool:
    """Whether a folder has every file that is needed to load a model. Large files are not opened to find out."""
    folder = current_folder(folder)
    described = any((folder / name).exists() for name in ("hparams.json", "config.json"))
    return described and bool(find_vocabulary(folder, whole=True)) and holds_params(folder)


def holds_params(folder: Path) -> bool:
    """Whether a folder has parameters, in either layout."""
    index = folder / INDEX
    try:
        if (folder / TENSORS).exists():
            return True
        if index.exists():
            return all((folder / name).exists() for name in read_index(index).values())
        checkpoint = tensorflow.find_checkpoint(folder)
    except (OSError, ValueError):
        return False
    return tensorflow.index_file(checkpoint).exists() and tensorflow.data_file(checkpoint).exists()
