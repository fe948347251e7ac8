"""`numpy-gpt2 download`: fetches released models."""

from __future__ import annotations

import argparse

from ..hub.download import describe_models, download
from ..hub.names import ALIASES, EMBEDDED, NAMES, PARAMETERS, model_folder
from .arguments import add_message_options, add_models_dir

HELP = "fetch a released model"
DESCRIPTION = (
    "Fetch released GPT-2 models. Files that are complete are not fetched again; an interrupted download is resumed."
)
EXAMPLES = """\
  numpy-gpt2 download 124M
  numpy-gpt2 download distilgpt2 --models-dir models
  numpy-gpt2 download --list
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"{', '.join(NAMES)}, a name that Hugging Face uses for one of them ({', '.join(ALIASES)}), or all",
    )
    parser.add_argument("--list", action="store_true", help="only show which models are on disk, their size and folder")
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
        print(describe_models(names or NAMES, args.models_dir))
        return
    for name in names:
        if name != EMBEDDED:
            download(name, args.models_dir, args.base_url, args.verify)
        print(f"{name} is in {model_folder(name, args.models_dir)}", flush=True)


def names_in(args: argparse.Namespace) -> list[str]:
    """The models that the command line names, each once.

    Raises:
        ValueError: it names none, or there is no such model.
    """
    given = [*PARAMETERS] if "all" in args.names else [ALIASES.get(name, name) for name in args.names]
    if unknown := [name for name in given if name not in NAMES]:
        raise ValueError(f"there is no model {unknown[0]!r}: the names are {', '.join((*NAMES, *ALIASES))}, all")
    if not given and not args.list:
        raise ValueError(f"name a model ({', '.join(NAMES)}, or all)")
    return list(dict.fromkeys(given))
