"""The command line: `python -m numpy_gpt2 "Once upon a time"`."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and Ctrl-C is not ignored, as in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends the program silently while it imports its modules

import argparse
import io
import logging
import sys

from . import __version__
from .commands import ArgumentParser, log_to_standard_error, run
from .download import EMBEDDED, expand, is_on_disk

log = logging.getLogger("numpy_gpt2")

DESCRIPTION = """\
Continue a text with GPT-2, in plain NumPy. The text appears as it is made.

examples:
  python -m numpy_gpt2 "Once upon a time"
  python -m numpy_gpt2 "Once upon a time" --max-new-tokens 200 --seed 1
  python -m numpy_gpt2 "Alan Turing theorized that" --model 124M --greedy
"""

NOTICE = (
    "this is tiny, a small model that knows only fairy tales; "
    "`python -m numpy_gpt2.download 124M` gets the real GPT-2 (500 MB, and TensorFlow to read it once)"
)
ENDED: dict[str | None, str] = {
    "end_of_text": "the model ended the text",
    "length": "--max-new-tokens is reached",
    "context": "the model's context is full",
}


def parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="numpy-gpt2", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "prompt",
        help="the text to continue; if it is empty, the model begins one of its own (write -- before a prompt that "
        "begins with a dash)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="tiny, 124M, 355M, 774M, 1558M, distilgpt2, or a folder; what is not there is downloaded first (default: "
        "124M if it is on disk, otherwise tiny, a small model that comes with the package)",
    )
    parser.add_argument(
        "--models-dir",
        metavar="DIR",
        help="the folder that the models are in (default: NUMPY_GPT2_MODELS, or a folder in your cache)",
    )
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=int, default=64, help="end after N tokens (default: %(default)s)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--temperature",
        metavar="T",
        type=float,
        default=1.0,
        help="below 1 for less, above 1 for more surprising text (default: %(default)s)",
    )
    how.add_argument(
        "--greedy",
        dest="temperature",
        action="store_const",
        const=0.0,
        help="take the likeliest token each time, as a temperature of 0 does",
    )
    parser.add_argument(
        "--top-k",
        metavar="K",
        type=int,
        default=40,
        help="draw only from the K likeliest tokens, 0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        metavar="P",
        type=float,
        default=1.0,
        help="draw only from the likeliest tokens that have the probability P together (default: %(default)s, all)",
    )
    parser.add_argument("--seed", metavar="S", type=int, help="make the run repeatable")
    parser.add_argument("--verbose", action="store_true", help="say on standard error why the text ended")
    parser.add_argument("--version", action="version", version=f"numpy_gpt2 {__version__}")
    return parser


def continue_prompt(args: argparse.Namespace) -> None:
    """Prints the continuation that the options ask for."""
    from .gpt2 import load

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on, there may be something to clean up
    name = default_model(args.models_dir) if args.model is None else args.model
    model = load(name, args.models_dir)
    pieces = model.stream(args.prompt, args.max_new_tokens, args.temperature, args.top_k, args.top_p, args.seed)
    if args.model is None and name == EMBEDDED:
        log.info(NOTICE)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    if args.verbose or pieces.finish_reason == "context":
        log.info(ENDED[pieces.finish_reason])


def default_model(models_dir: str | None) -> str:
    """The model to use when none is named: the real one if it is there.

    Raises:
        FileNotFoundError: there is no such folder of models.
    """
    if models_dir and not expand(models_dir).is_dir():
        raise FileNotFoundError(f"there is no folder {models_dir}, which --models-dir names")
    return "124M" if is_on_disk("124M", models_dir) else EMBEDDED


def main() -> int:
    """The command line `python -m numpy_gpt2` and `numpy-gpt2`."""
    args = parser().parse_args()
    log_to_standard_error()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a "?" for what the terminal cannot show
    return run(lambda: continue_prompt(args))


if __name__ == "__main__":
    sys.exit(main())
