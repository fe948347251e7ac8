"""The options that several subcommands have."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from .. import sampling


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which model to use, and how to compute."""
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or owner/name for any GPT-2 on Hugging Face's "
        "hub; 124M, 355M, 774M, 1558M for OpenAI's checkpoints; or a folder. A model that is not on disk is downloaded "
        "first (default: gpt2 if it is on disk, otherwise tiny, a small model that comes with the package)",
    )
    add_models_dir(group)
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="where to compute: numpy, or cupy on a GPU (default: NUMPY_GPT2_BACKEND, or numpy)",
    )
    add_threads(group)
    add_message_options(parser)


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how much is told on standard error."""
    group = parser.add_argument_group("messages").add_mutually_exclusive_group()
    for name, level, help in (
        ("--quiet", logging.ERROR, "only errors on standard error"),
        (
            "--verbose",
            logging.DEBUG,
            "say more on standard error, such as which folder is loaded and why each text ended",
        ),
    ):
        group.add_argument(name, dest="log_level", action="store_const", const=level, default=logging.INFO, help=help)


def add_threads(group: Any) -> None:
    """Adds the option `--threads` to a parser or a group."""
    help = "use N processor cores (default: all, but one to read and write with a small model such as tiny)"
    group.add_argument("--threads", metavar="N", type=int, help=help)


def add_models_dir(group: Any) -> None:
    """Adds the option `--models-dir` to a parser or a group."""
    group.add_argument(
        "--models-dir",
        metavar="DIR",
        help="the folder that the models are in (default: NUMPY_GPT2_MODELS, or a folder in your cache)",
    )


def add_sampling_options(parser: argparse.ArgumentParser, off: bool = False) -> Any:
    """Adds the options of `sampling.OPTIONS`, with the defaults of generation or, if `off`, without any effect.

    Returns:
        The group that they are in.
    """
    group = parser.add_argument_group("how each token is chosen")
    for option in sampling.OPTIONS:
        default = option.off if off else option.default
        is_temperature = option.name == "temperature"
        place = group.add_mutually_exclusive_group() if is_temperature else group
        place.add_argument(
            f"--{option.name.replace('_', '-')}",
            metavar="N" if option.type is int else "X",
            type=option.type,
            default=default,
            help=f"{option.help} (default: {default:g})",
        )
        if is_temperature:
            help = "the same as a temperature of 0"
            place.add_argument("--greedy", dest=option.name, action="store_const", const=0.0, help=help)
    return group


def sampling_options(args: argparse.Namespace) -> dict[str, float]:
    """The values of the options that `add_sampling_options` has added."""
    return {option.name: getattr(args, option.name) for option in sampling.OPTIONS}
