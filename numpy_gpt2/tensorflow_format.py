"""OpenAI's checkpoints: three kinds of files, `model.ckpt.*`, that TensorFlow wrote and only it can read.

A folder has:

    checkpoint                        text: the name of the current checkpoint, of several in a folder
    model.ckpt.index                  which variables there are, with their places and checksums
    model.ckpt.data-00000-of-00001    the numbers, one array after the other
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

from .files import read_text
from .params import Array

ADVICE = "if it was downloaded, delete the checkpoint's files, and download them again"


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


def data_file(checkpoint: Path) -> Path:
    """The file that holds a checkpoint's arrays."""
    return checkpoint.with_name(checkpoint.name + ".data-00000-of-00001")


def index_file(checkpoint: Path) -> Path:
    """The file that lists a checkpoint's variables, with a checksum of each."""
    return checkpoint.with_name(checkpoint.name + ".index")


def origin(checkpoint: Path) -> dict[str, str]:
    """What tells a checkpoint from every other: the length and the hash of its index, which holds all checksums."""
    index = index_file(checkpoint).read_bytes()
    return {"numpy_gpt2.index_size": str(len(index)), "numpy_gpt2.index_sha256": hashlib.sha256(index).hexdigest()}


def check_tensorflow(checkpoint: str | Path) -> None:
    """Checks that TensorFlow can be imported, by importing it, which takes a few seconds.

    Args:
        checkpoint: what to name as the checkpoint that it is needed for.

    Raises:
        ImportError: it is not installed, or does not work.
    """
    if not importlib.util.find_spec("tensorflow"):
        raise ImportError(
            f"{checkpoint} is a TensorFlow checkpoint, and reading it, which is done once, needs TensorFlow: "
            'pip install "numpy_gpt2[weights]"'
        )
    with standard_error_hidden():
        try:
            import tensorflow  # noqa: F401
        except Exception as error:  # a broken installation raises other things than ImportError, too
            raise ImportError(f"TensorFlow is installed, but cannot be imported: {error}") from error


class CheckpointReader:
    """An OpenAI checkpoint, from which TensorFlow reads one array at a time.

    Attributes:
        shapes: the shape of every variable in it.

    Raises:
        ImportError: TensorFlow is not installed, or does not work.
        ValueError: the index is damaged.
    """

    def __init__(self, checkpoint: Path) -> None:
        check_tensorflow(checkpoint)
        import tensorflow as tf

        self.checkpoint = checkpoint
        with standard_error_hidden():
            try:
                self._reader = tf.train.load_checkpoint(os.fspath(checkpoint))
                shapes = self._reader.get_variable_to_shape_map()
            except Exception as error:  # of several kinds, without a common base
                raise ValueError(
                    f"{index_file(checkpoint)} is damaged or cut short ({type(error).__name__}): {ADVICE}"
                ) from error
        self.shapes = {variable: tuple(shape) for variable, shape in shapes.items()}

    def read(self, name: str, shape: tuple[int, ...]) -> Array:
        """One parameter, after TensorFlow has compared its checksum.

        Raises:
            ValueError: it is damaged, not of a float type, or holds NaN or infinity.
        """
        variable, _ = stored(name, shape)
        with standard_error_hidden():
            try:
                array = self._reader.get_tensor(variable)
            except Exception as error:  # of several kinds, without a common base
                raise ValueError(
                    f"{self.checkpoint}: the array {variable} cannot be read; the data file is missing, damaged or "
                    f"cut short ({type(error).__name__}): {ADVICE}"
                ) from error
        if array.dtype.kind != "f":
            raise ValueError(f"{self.checkpoint}: the array {variable} has the type {array.dtype}, not a float type")
        if not np.isfinite(array).all():
            raise ValueError(f"{self.checkpoint}: the array {variable} holds NaN or infinity")
        return np.reshape(array, shape)


def stored(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The name and the shape that a parameter has in a checkpoint. A linear map is a convolution of width 1 there.

    >>> stored("h0/attn/c_attn/w", (768, 2304))
    ('model/h0/attn/c_attn/w', (1, 768, 2304))
    """
    return f"model/{name}", (1, *shape) if name.endswith("/w") else shape


@contextlib.contextmanager
def standard_error_hidden() -> Iterator[None]:
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
