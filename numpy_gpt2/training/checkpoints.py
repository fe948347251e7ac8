"""A run on disk: the model, in a folder that `load` and transformers open, and beside it what is needed to go on.

`training.safetensors` holds the means of the optimizer, low-rank updates and the matrices that they change, if there
are any, and in its metadata the options and the number of steps. The files of the folder are replaced in one step, as
by `gpt2.save`. So whatever interrupts it, the folder holds this state of the run or the one before.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from .. import gpt2
from ..gpt2 import GPT2
from ..machine.files import current_folder
from ..params import Array
from ..weights import folder as folders
from ..weights.folder import TRAINING
from ..weights.safetensors import open_file, write_file
from .loop import Options, Training

KEY = "numpy_gpt2.training"  # of the metadata


def save(training: Training, folder: str | os.PathLike[str]) -> None:
    """Saves a run.

    Raises:
        OSError, ValueError: as for `gpt2.save`; what the folder held is whole.
        ValueError: the last step was interrupted while it changed the parameters.
    """
    if training.is_torn:
        raise ValueError(
            "the last step was interrupted half-way, so this is no state of the run: restore the one before"
        )
    arrays = state(training)
    about = {
        "step": training.step,
        "options": dataclasses.asdict(training.options),
        "source": training.source,
        "text": training.digest(),
        "threads": training.n_threads,
    }

    def write(staging: Path) -> None:
        shapes = {name: array.shape for name, array in arrays.items()}
        dtype = training.model.params.wte.dtype
        write_file(staging / TRAINING, shapes, dtype, arrays.__getitem__, {KEY: json.dumps(about)})

    gpt2.save(training.model, folder, also=write)


def state(training: Training) -> dict[str, Array]:
    """The arrays of a run by name, apart from the model. They are those of the run, not copies."""
    optimizer, adapters = training.optimizer, training.adapters
    of_adapters = {"adapter": adapters.arrays, "base": adapters.base} if adapters else {}
    kinds = {"m": optimizer.m, "v": optimizer.v, **of_adapters}
    return {f"{kind}/{name}": array for kind, arrays in kinds.items() for name, array in arrays.items()}


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run that can go on."""
    return (current_folder(folder) / TRAINING).exists()


def read_about(folder: Path) -> dict[str, Any]:
    """What a saved run says of itself: `step`, `options`, `source`, `text` and `threads`.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the file is damaged, or not of a run.
    """
    return folders.read_whole(folder, lambda current: open_run(current)[0])


def open_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run in a folder says of itself, and its arrays, not yet read. Raises as `read_about`."""
    file = folder / TRAINING
    if not file.exists():
        raise FileNotFoundError(f"there is no run to go on with in {folder}: {TRAINING} is missing")
    try:
        metadata, tensors = open_file(file)
    except ValueError:
        raise ValueError(
            f"{file} is damaged, so the run cannot go on; the model beside it can be used, and trained with --from"
        ) from None
    try:
        about = json.loads(metadata[KEY])
        about["options"] = Options(**about["options"])
        int(about["step"]), about["text"], about["source"], int(about["threads"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is not of a run that this version can go on with") from None
    return about, tensors


def restore(folder: str | os.PathLike[str], ids: Array, n_threads: int | None = None, **changed: Any) -> Training:
    """A saved run, which goes on as if it had never stopped.

    Args:
        folder: where it was saved.
        ids: the text, which must be the same.
        n_threads: the same number gives the same numbers, bit for bit; by default as for `Training`.
        changed: options to change: `steps`, which the learning rate then follows, or `sparing`.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the text is another one, or a file is damaged.
    """

    def read(current: Path) -> Training:
        about, tensors = open_run(current)
        model: GPT2 = gpt2.read(current, str(folder), next(iter(tensors.values())).numpy_dtype)
        training = Training(model, ids, dataclasses.replace(about["options"], **changed), n_threads)
        training.source = about["source"]
        if training.digest() != about["text"]:
            raise ValueError(
                f"the run in {folder} was trained on another text: to go on, it needs the same text, without what was "
                "held out, which stays the same too"
            )
        arrays = state(training)
        if {name: array.shape for name, array in arrays.items()} != {n: tensor.shape for n, tensor in tensors.items()}:
            raise ValueError(f"{current / TRAINING} does not belong to the model beside it")
        for name, array in arrays.items():
            array[...] = tensors[name].read(array.dtype)
        training.step = training.optimizer.n_updates = int(about["step"])
        return training

    return folders.read_whole(Path(folder), read)
