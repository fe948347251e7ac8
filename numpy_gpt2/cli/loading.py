"""Loading the model that the command line asks for."""

from __future__ import annotations

import argparse
import logging

from .. import checks
from ..decoding.assistant import check_assistant, drafts
from ..gpt2 import GPT2, load
from ..hub.names import EMBEDDED, expand, is_on_disk
from ..machine.threads import set_threads

log = logging.getLogger("numpy_gpt2")

NOTICE = "using tiny, a small model trained on fairy tales; `numpy-gpt2 download gpt2` fetches the real GPT-2 (550 MB)"


def load_model(args: argparse.Namespace) -> GPT2:
    """The model that the options choose: by default gpt2 or 124M if it is on disk, otherwise tiny.

    Raises:
        FileNotFoundError: there is no such folder of models.
        ImportError, OSError, ValueError: as for `gpt2.load` and `set_threads`.
    """
    if args.threads is not None:
        set_threads(checks.check_whole_number("--threads", args.threads, at_least=1))
    if args.model is not None:
        return load(args.model, args.models_dir, backend=args.backend)
    if args.models_dir and not expand(args.models_dir).is_dir():
        raise FileNotFoundError(f"there is no folder {args.models_dir}, which --models-dir names")
    real = "gpt2" if is_on_disk("gpt2", args.models_dir) else EMBEDDED
    return load(real, args.models_dir, backend=args.backend)


def load_assistant(args: argparse.Namespace, model: GPT2) -> GPT2:
    """The model that `--assistant` names.

    Raises:
        ValueError: it cannot be loaded, or has another vocabulary than the model.
    """
    try:
        assistant = load(args.assistant, args.models_dir, backend=args.backend)
        check_assistant(assistant, model.hparams, model.tokenizer)
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"--assistant: {error}") from error
    if not drafts(assistant.hparams, model.hparams):
        log.info("the assistant %s is not small enough beside the model: nothing will be drafted", assistant.name)
    return assistant


def announce(model: GPT2, args: argparse.Namespace) -> None:
    """Tells a user who did not choose a model that this one is not the real GPT-2."""
    if args.model is None and model.name == EMBEDDED:
        log.info(NOTICE)
