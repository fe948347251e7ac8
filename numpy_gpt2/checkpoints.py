"""A model's folder: its parameters, from files and back.

Such a folder is in one of two layouts:

    hparams.json, checkpoint, model.ckpt.*    OpenAI's, which only TensorFlow can read
    config.json, model.safetensors            Hugging Face's, which is mapped into memory and needs no reading

The first load of an OpenAI checkpoint saves the model in Hugging Face's layout beside it; later loads
take that. `configs.py` reads what the shape is, `vocabulary.py` the vocabulary.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .configs import check_multiple_choice, is_written_here, write_configs
from .files import locked, sync, write_atomically
from .params import Array, HParams, Linear, Params, build, float_dtype, named_arrays, number_of_params, shapes
from .safetensors_format import Tensor, open_file, open_shards, write_file
from .tensorflow_format import CheckpointReader, data_file, find_checkpoint, index_file, origin, stored
from .tokenizer import Tokenizer
from .vocabulary import find_vocabulary

log = logging.getLogger(__name__)

# Arrays that are no parameters of the language model: causal masks, and the second head of GPT2DoubleHeadsModel.
SUMMARY = "multiple_choice_head.summary"
NO_PARAMETERS = re.compile(rf"(transformer\.)?h\.\d+\.attn\.(masked_)?bias|{SUMMARY}\.(weight|bias)")


def holds_model(folder: Path) -> bool:
    """Whether all that is needed to load a model is in a folder, as far as one can tell without opening large files."""
    described = any((folder / file).exists() for file in ("hparams.json", "config.json"))
    return described and bool(find_vocabulary(folder, whole=True)) and holds_params(folder)


def holds_params(folder: Path) -> bool:
    """Whether there are parameters in a folder, in one layout or the other."""
    if any((folder / file).exists() for file in ("model.safetensors", "model.safetensors.index.json")):
        return True
    try:
        checkpoint = find_checkpoint(folder)
    except ValueError:
        return False
    return index_file(checkpoint).exists() and data_file(checkpoint).exists()


def load_params(
    folder: Path, hparams: HParams, tokenizer: Tokenizer | None, dtype: npt.DTypeLike = np.float32
) -> Params:
    """The parameters of the model in a folder; an OpenAI checkpoint is converted first, once.

    Arrays that are on the disk in the dtype asked for are not read but are views of the file, mapped
    into memory: loading takes no time, and processes share one copy.

    A `model.safetensors` that was not converted here is used as it is. One that was is written again
    when the checkpoint beside it has changed. Where the folder cannot be written, the model runs from
    memory, and a warning is logged.

    Raises:
        FileNotFoundError: there are no parameters in the folder.
        ImportError: a checkpoint has to be converted and TensorFlow is not installed.
        ValueError: the files are damaged or do not fit the hyper-parameters, the output head is not the
            token embeddings, or dtype is neither float32 nor float64.
    """
    dtype = float_dtype(dtype)
    file, tensors = find_tensors(folder)
    if tensors:
        return read_tensors(file, tensors, hparams, dtype)
    checkpoint = find_checkpoint(folder)
    if not index_file(checkpoint).exists():
        refuse_folder(folder)
    try:
        convert(folder, checkpoint, hparams, tokenizer)
    except OSError as error:
        log.warning(
            "%s cannot be written (%s); the model runs from memory, and TensorFlow will have to read it again",
            file,
            error.strerror or error,
        )
        reader = open_checkpoint(checkpoint, hparams)
        return build(hparams, lambda name, shape: reader.read(name, shape).astype(dtype, copy=False))
    return read_tensors(file, open_file(file)[1], hparams, dtype)


def load_multiple_choice_head(folder: Path, hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Linear | None:
    """The second head of a `GPT2DoubleHeadsModel`, a map from n_embd numbers to one; None if the model has none.

    Raises:
        FileNotFoundError: the model has one, but no config.json.
        ValueError: it is a head that cannot be computed here, or the files are damaged.
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
    """The arrays in the safetensors files of a folder, with the file to name; none if they have yet to be made.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
    """
    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not (tensors := current_tensors(folder)) and index.exists():
        return index, open_shards(index)
    return file, tensors


def current_tensors(folder: Path) -> dict[str, Tensor]:
    """The arrays in the folder's `model.safetensors`.

    There are none if there is no such file, or if it was converted from another checkpoint than is there now.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / "model.safetensors"
    if not file.exists():
        return {}
    metadata, tensors = open_file(file)
    if "numpy_gpt2.index_sha256" in metadata:
        checkpoint = find_checkpoint(folder)
        if index_file(checkpoint).exists() and not origin(checkpoint).items() <= metadata.items():
            return {}
    return tensors


def refuse_folder(folder: Path) -> None:
    """Says what is missing in a folder without parameters that can be loaded.

    Raises:
        FileNotFoundError: there are none.
        ValueError: there are, but in a pickle.
    """
    for pickle in sorted(folder.glob("pytorch_model*.bin")):
        raise ValueError(
            f"{pickle} is a Python pickle, which can run any program when it is opened, and so is not opened here: "
            "with transformers, from_pretrained and then save_pretrained make a model.safetensors of it"
        )
    raise FileNotFoundError(
        f"{folder} holds no parameters: neither model.safetensors nor {index_file(find_checkpoint(folder)).name}"
    )


def check_arrays(
    file: Path,
    found: Mapping[str, tuple[int, ...]],
    hparams: HParams,
    spell: Callable[[str, tuple[int, ...]], tuple[str, tuple[int, ...]]],
) -> None:
    """Checks that the arrays in a file are those of a model with these hyper-parameters, each in its shape.

    Args:
        file: the file to name.
        found: the shape of each array in it.
        hparams: the hyper-parameters.
        spell: gives the name and the shape that a parameter has in such a file.

    Raises:
        ValueError: an array is missing or has another shape, or there are more blocks: without its last
            blocks a model runs, but writes nonsense.
    """
    numbers = [int(block[1]) for name in found if (block := re.match(r"(?:model/h|(?:transformer\.)?h\.)(\d+)", name))]
    n_layer = max(numbers, default=-1) + 1
    if n_layer != hparams.n_layer:
        raise ValueError(f"{file} holds {n_layer} blocks, but the hyper-parameters say {hparams.n_layer}")
    for name, shape in (spell(*parameter) for parameter in shapes(hparams).items()):
        if name not in found:
            raise ValueError(f"{file}: the array {name} is missing")
        if found[name] != shape:
            raise ValueError(
                f"{file}: the array {name} has the shape {list(found[name])}, "
                f"but the hyper-parameters ask for {list(shape)}"
            )


def open_checkpoint(checkpoint: Path, hparams: HParams) -> CheckpointReader:
    """An OpenAI checkpoint, of which the names and shapes of all arrays are right.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
        ValueError: the checkpoint is damaged, or `check_arrays` refuses it.
    """
    reader = CheckpointReader(checkpoint)
    check_arrays(checkpoint, reader.shapes, hparams, stored)
    return reader


def read_tensors(file: Path, tensors: dict[str, Tensor], hparams: HParams, dtype: npt.DTypeLike = np.float32) -> Params:
    """The parameters among the arrays of a file, with the names of Hugging Face's `GPT2Model` or `GPT2LMHeadModel`.

    Raises:
        ValueError: `check_arrays` refuses them, an array is not of a float type, one belongs to another
            kind of model, or the output head is not the token embeddings.
    """
    prefix = "transformer." if "transformer.wte.weight" in tensors else ""

    def spell(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        return prefix + hugging_face_name(name), shape

    def read(name: str, shape: tuple[int, ...]) -> Array:
        try:
            return tensors[name].read(dtype)
        except ValueError as error:
            raise ValueError(f"{file}: the array {name}: {error}") from None

    check_arrays(file, {name: tensor.shape for name, tensor in tensors.items()}, hparams, spell)
    known = {spell(*parameter)[0] for parameter in shapes(hparams).items()} | {"lm_head.weight"}
    if others := [name for name in tensors if name not in known and not NO_PARAMETERS.fullmatch(name)]:
        raise ValueError(f"{file}: the array {others[0]} is no part of GPT-2, so this is another kind of model")
    params = build(hparams, lambda name, shape: read(*spell(name, shape)))
    if "lm_head.weight" in tensors and not np.array_equal(read("lm_head.weight", ()), params.wte):
        raise ValueError(f"{file}: lm_head.weight differs from wte, but GPT-2's output head is its token embeddings")
    return params


def hugging_face_name(name: str) -> str:
    """The name that a parameter has in Hugging Face's `GPT2Model`; in `GPT2LMHeadModel`, `transformer.` is before it.

    >>> hugging_face_name("h0/attn/c_attn/w"), hugging_face_name("wte")
    ('h.0.attn.c_attn.weight', 'wte.weight')
    """
    if name in ("wte", "wpe"):
        return f"{name}.weight"
    *path, kind = name.split("/")
    return re.sub(r"^h(\d+)", r"h.\1", ".".join(path)) + {"w": ".weight", "g": ".weight", "b": ".bias"}[kind]


# Saving


def save(
    folder: Path, hparams: HParams, params: Params, tokenizer: Tokenizer | None, head: Linear | None = None
) -> None:
    """Saves a model, with its multiple-choice head if it has one, so that `from_pretrained` and `load_params` open it.

    The folder is made if it is not there. A model that was saved to it before is replaced.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it holds another model, or a vocabulary, that was not saved here.
    """
    config = folder / "config.json"
    names = ("hparams.json", "checkpoint", "encoder.json", "vocab.bpe", "tokenizer.json")
    foreign = [folder / name for name in names if (folder / name).exists()]
    if not config.exists() or not is_written_here(config):
        foreign += [file for file in (config, *sorted(folder.glob("model.*"))) if file.exists()]
    if foreign:
        raise ValueError(
            f"{folder} holds another model or its vocabulary ({foreign[0].name}): save to a folder of its own"
        )
    folder.mkdir(parents=True, exist_ok=True)
    arrays = dict(named_arrays(params))
    with locked(folder):
        write_model(folder, hparams, tokenizer, lambda name, _: arrays[name], params.wte.dtype, {}, head)


def convert(folder: Path, checkpoint: Path, hparams: HParams, tokenizer: Tokenizer | None) -> None:
    """Saves the model of an OpenAI checkpoint in Hugging Face's layout, into the same folder.

    Only one array at a time is in memory.

    Raises:
        ImportError, ValueError: as `open_checkpoint`.
        OSError: the folder cannot be written.
    """
    from tqdm import tqdm

    with locked(folder):
        if current_tensors(folder):  # another process was faster
            return
        reader = open_checkpoint(checkpoint, hparams)
        log.info("converting %s to model.safetensors, which is done once", checkpoint)
        size = 4 * number_of_params(hparams)
        with tqdm(desc="converting", total=size, unit="B", unit_scale=True, disable=None) as progress:  # on terminals

            def read(name: str, shape: tuple[int, ...]) -> Array:
                array = reader.read(name, shape)
                progress.update(4 * array.size)
                return array

            write_model(folder, hparams, tokenizer, read, np.float32, origin(checkpoint))


def write_model(
    folder: Path,
    hparams: HParams,
    tokenizer: Tokenizer | None,
    read: Callable[[str, tuple[int, ...]], Array],
    dtype: npt.DTypeLike,
    metadata: Mapping[str, str],
    head: Linear | None = None,
) -> None:
    """Writes a folder in Hugging Face's layout, asking `read(name, shape)` for one array after the other.

    The new parameters appear last, and the old ones go before what describes them does: a process that
    is killed at any moment leaves no parameters of one model beside the configuration of another. A
    `config.json` that was not written here is left as it is.

    Raises:
        OSError: a file cannot be written.
    """
    file, config = folder / "model.safetensors", folder / "config.json"
    arrays = {f"transformer.{hugging_face_name(name)}": (name, shape) for name, shape in shapes(hparams).items()}
    of_head = {f"{SUMMARY}.weight": head.w.T, f"{SUMMARY}.bias": head.b} if head else {}

    def write(temporary: Path) -> None:
        write_file(
            temporary,
            {name: shape for name, (_, shape) in arrays.items()} | {name: a.shape for name, a in of_head.items()},
            dtype,
            lambda name: of_head[name] if name in of_head else read(*arrays[name]),
            {"format": "pt", **metadata},  # "pt": names and shapes are PyTorch's
        )
        sync(temporary)
        file.unlink(missing_ok=True)
        if not config.exists() or is_written_here(config):
            write_configs(folder, hparams, tokenizer, dtype, double_heads=head is not None)

    write_atomically(file, write)
