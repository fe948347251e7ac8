"""What the commands that run a model have in common: which model, and how many threads."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gpt2 import GPT2

log = logging.getLogger(__name__)

NOTICE = (
    "this is tiny, a small model that knows only fairy tales; "
    "`python -m numpy_gpt2.download 124M` gets the real GPT-2 (500 MB, and TensorFlow to read it once)"
)
# How the libraries that NumPy may multiply matrices with are told the number of threads.
THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options `--model`, `--models-dir` and `--threads`."""
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="tiny, 124M, 355M, 774M, 1558M, distilgpt2, or a folder; what is not there is downloaded first (default: "
        "124M if it is on disk, otherwise tiny, a small model that comes with the package)",
    )
    group.add_argument(
        "--models-dir",
        metavar="DIR",
        help="the folder that the models are in (default: NUMPY_GPT2_MODELS, or a folder in your cache)",
    )
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="where to compute: numpy, or cupy on a GPU (default: NUMPY_GPT2_BACKEND, or numpy)",
    )
    group.add_argument("--threads", metavar="N", type=int, help="use N processor cores (default: all)")


def set_threads(n: int | None) -> None:
    """Makes NumPy use n threads, if it has not been imported yet; None for as many as it wants.

    Raises:
        ValueError: n is not positive.
    """
    if n is None:
        return
    if n < 1:
        raise ValueError(f"--threads must be 1 or more, not {n}")
    os.environ.update(dict.fromkeys(THREADS, str(n)))


def load_model(args: argparse.Namespace) -> GPT2:
    """The model that the options choose: by default the real one if it is there, otherwise tiny.

    Raises:
        FileNotFoundError: there is no such folder of models.
        ImportError, OSError, ValueError: as `gpt2.load`.
    """
    from .download import EMBEDDED, expand, is_on_disk
    from .gpt2 import load

    if args.model is not None:
        return load(args.model, args.models_dir, backend=args.backend)
    if args.models_dir and not expand(args.models_dir).is_dir():
        raise FileNotFoundError(f"there is no folder {args.models_dir}, which --models-dir names")
    if is_on_disk("124M", args.models_dir):
        return load("124M", args.models_dir, backend=args.backend)
    return load(EMBEDDED, backend=args.backend)


def announce(model: GPT2, args: argparse.Namespace) -> None:
    """Says so where the model is not the one that people come for, and they did not ask for it."""
    from .download import EMBEDDED

    if args.model is None and model.name == EMBEDDED:
        log.info(NOTICE)
