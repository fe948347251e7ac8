"""`numpy-gpt2 download`: fetches models."""

from __future__ import annotations

import argparse

from ..hub import fetch  # noqa: F401  imported here, so that Ctrl-C while it is imported ends the command silently
from ..hub.download import download
from ..hub.listing import describe_models, repositories
from ..hub.names import EMBEDDED, NAMES, ON_HUB, model_folder, source, unknown
from .arguments import add_message_options, add_models_dir
from .process import show

HELP = "fetch a model"
DESCRIPTION = (
    "Fetch GPT-2 models. Files that are intact are not fetched again; an interrupted download is resumed. The names "
    "gpt2 to gpt2-xl fetch the released weights from Hugging Face's hub, 124M to 1558M the same weights as OpenAI's "
    "original checkpoints, which need TensorFlow once."
)
EXAMPLES = """\
  numpy-gpt2 download gpt2
  numpy-gpt2 download distilgpt2 --models-dir models
  numpy-gpt2 download --list
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"{', '.join(NAMES)}; owner/name or owner/name@revision, for any GPT-2 on the hub; or all, from gpt2 to "
        "distilgpt2",
    )
    parser.add_argument(
        "--list", action="store_true", help="only show which models are on disk, and what could be deleted"
    )
    add_models_dir(parser)
    add_message_options(parser)
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="a mirror to fetch from, which has the files at URL/NAME/FILE (default: NUMPY_GPT2_BASE_URL, or where "
        "the models were released)",
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="accept vocabularies other than GPT-2's, from a mirror of other models",
    )


def run(args: argparse.Namespace) -> None:
    """Downloads the models, and says where they are; or lists them."""
    try:
        names = names_in(args)
    except ValueError as error:
        args.parser.error(str(error))
    if args.list:
        show(describe_models(names or [*NAMES, *repositories(args.models_dir)], args.models_dir))
        return
    for name in names:
        is_here = name == EMBEDDED
        folder = model_folder(name) if is_here else download(name, args.models_dir, args.base_url, args.verify)
        show(f"{name} is in {folder}")


def names_in(args: argparse.Namespace) -> list[str]:
    """The models that the command line names, each once.

    Raises:
        ValueError: it names none, or there is no such model.
    """
    given = [each for name in args.names for each in (ON_HUB if name == "all" else [name])]
    if strange := [name for name in given if name != EMBEDDED and not source(name)]:
        raise ValueError(unknown(strange[0]))
    if not given and not args.list:
        raise ValueError(f"name a model ({', '.join(NAMES)}, or all)")
    return list(dict.fromkeys(given))
