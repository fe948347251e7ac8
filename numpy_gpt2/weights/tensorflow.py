"""OpenAI's checkpoints: a group of files, `model.ckpt.*`, that TensorFlow wrote and only TensorFlow can read.

checkpoint                        text: the name of the current checkpoint, if a folder has several
model.ckpt.index                  the variables: their names, positions and checksums
model.ckpt.data-00000-of-00001    the arrays, one after another
model.ckpt.meta                   the graph of the original program, which is not needed here
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..machine.files import read_text
from ..params import Array

# The released checkpoints, by their folder's name, and the same weights on Hugging Face's hub.
HUB_NAMES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}

ADVICE = "if it was downloaded, delete the checkpoint's files, and download them again"


class CheckpointReader:
    """Reads an OpenAI checkpoint, one array at a time.

    Attributes:
        checkpoint: the path with which the names of its files begin.
        shapes: the shape of each variable, by name.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
        ValueError: the index is damaged.
    """

    def __init__(self, checkpoint: Path) -> None:
        check_tensorflow(checkpoint, checkpoint.parent.name)
        import tensorflow as tf

        self.checkpoint = checkpoint
        with standard_error_hidden():
            try:
                self._reader = tf.train.load_checkpoint(os.fspath(checkpoint))
                shapes = self._reader.get_variable_to_shape_map()
            except Exception as error:  # TensorFlow raises several types without a common base class
                raise ValueError(
                    f"{index_file(checkpoint)} is damaged or cut short ({type(error).__name__}): {ADVICE}"
                ) from error
        self.shapes = {variable: tuple(shape) for variable, shape in shapes.items()}

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """Reads one parameter. TensorFlow compares its checksum.

        Args:
            name: the name of the parameter, as in `params.build`.
            shape: its shape.

        Raises:
            ValueError: the array is damaged, does not hold floating-point numbers, or holds NaN or infinity.
        """
        variable, _ = checkpoint_spelling(name, shape)
        with standard_error_hidden():
            try:
                array = self._reader.get_tensor(variable)
            except Exception as error:  # TensorFlow raises several types without a common base class
                raise ValueError(
                    f"{self.checkpoint}: the array {variable} cannot be read; the data file is missing, damaged or "
                    f"cut short ({type(error).__name__}): {ADVICE}"
                ) from error
        if array.dtype.kind != "f":
            raise ValueError(f"{self.checkpoint}: the array {variable} has the type {array.dtype}, not a float type")
        if not np.isfinite(array).all():
            raise ValueError(f"{self.checkpoint}: the array {variable} holds NaN or infinity")
        return np.reshape(array, shape)


def check_tensorflow(model: str | Path, name: str) -> None:
    """Checks that TensorFlow can be imported. It is imported for this, which takes a few seconds.

    Args:
        model: the model to name in an error message.
        name: its name, if it is a released one: the message then says by which name it needs no TensorFlow.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
    """
    hub = HUB_NAMES.get(name)
    otherwise = f"; `numpy-gpt2 download {hub}` fetches the same weights without TensorFlow" if hub else ""
    if not importlib.util.find_spec("tensorflow"):
        raise ImportError(
            f"{model} is a TensorFlow checkpoint, and reading it, which is done once, needs TensorFlow: "
            f'pip install "numpy_gpt2[weights]"{otherwise}'
        )
    with standard_error_hidden():
        try:
            import tensorflow  # noqa: F401
        except Exception as error:  # a broken installation may raise more than ImportError
            raise ImportError(f"TensorFlow is installed, but cannot be imported ({error}){otherwise}") from error


def checkpoint_spelling(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The name and the shape of a parameter in a checkpoint, where a linear map is a convolution of width 1.

    >>> checkpoint_spelling("h0/attn/c_attn/w", (768, 2304))
    ('model/h0/attn/c_attn/w', (1, 768, 2304))
    """
    return f"model/{name}", (1, *shape) if name.endswith("/w") else shape


def find_checkpoint(folder: Path) -> Path:
    """Finds the current checkpoint of a folder.

    The file `checkpoint` names it. If the name is a path, only its last part counts, since the path may be that
    of another machine.

    Returns:
        The path with which the names of the checkpoint's files begin. The files need not exist.

    Raises:
        ValueError: the file `checkpoint` exists, but names no checkpoint.
    """
    state = folder / "checkpoint"
    if not state.exists():
        return folder / "model.ckpt"
    name = re.search(r'^model_checkpoint_path:\s*"(?:[^"\n]*[/\\])?([^"\n/\\]+)"', read_text(state), re.M)
    if not name:
        raise ValueError(f'{state} does not name a checkpoint, as in model_checkpoint_path: "model.ckpt"')
    return folder / name[1]


def index_file(checkpoint: Path) -> Path:
    """The file that lists the variables of a checkpoint, with a checksum of each."""
    return checkpoint.with_name(checkpoint.name + ".index")


def data_file(checkpoint: Path) -> Path:
    """The file that holds the arrays of a checkpoint."""
    return checkpoint.with_name(checkpoint.name + ".data-00000-of-00001")


def fingerprint(checkpoint: Path) -> dict[str, str]:
    """Metadata that identify a checkpoint: the size and the hash of its index, which holds the checksums."""
    index = index_file(checkpoint).read_bytes()
    return {"numpy_gpt2.index_size": str(len(index)), "numpy_gpt2.index_sha256": hashlib.sha256(index).hexdigest()}


@contextlib.contextmanager
def standard_error_hidden() -> Iterator[None]:
    """Discards what is written to standard error. TensorFlow's C++ code writes there when it is loaded."""
    try:
        standard_error = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as discard:
            os.dup2(discard.fileno(), 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
