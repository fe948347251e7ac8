"""A run of `numpy-gpt2 train`: begun, or found on disk to go on with."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..decoding.prompts import require
from ..gpt2 import GPT2, load
from ..hub.download import in_bytes
from ..hub.names import RELEASED, model_folder
from ..machine.memory import available_memory, peak_memory, used_memory
from ..machine.threads import count_threads
from ..params import Array, HParams, count_params, init_params
from ..tokenizer import Tokenizer
from ..training import checkpoints, loop
from ..training.loop import Options, Training
from ..training.memory import estimate
from ..weights.folder import TRAINING, check_replaceable, holds_params
from .process import check_standard_input, read_input
from .score import encode

log = logging.getLogger("numpy_gpt2")

# The shape of a new model, unless options say otherwise: that of tiny.
NEW = {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_ctx": 256}
HELD_OUT = 20  # a twentieth of the text is held out,
MOST_HELD_OUT = 10_000  # but not more tokens than this, since evaluation takes time


LOCK = ".training.lock"  # in the folder of the model


class Text(NamedTuple):
    """What there is to learn from, and what is held out, as token ids."""

    ids: Array
    held_out: Array | None


def check_output(folder: Path, args: argparse.Namespace) -> None:
    """Checks that a run may be saved to a folder, before anything takes time.

    Raises:
        FileNotFoundError: there is no run to go on with.
        ValueError: the folder holds a model or a run that must not be replaced.
    """
    if args.resume:
        if not checkpoints.holds_run(folder):
            raise FileNotFoundError(f"there is no run to go on with in {folder}: {TRAINING} is missing")
        return
    check_replaceable(folder)
    if checkpoints.holds_run(folder):
        raise ValueError(f"{folder} holds a run: --resume goes on with it; a new one needs a folder of its own")
    if holds_params(folder):
        raise ValueError(f"{folder} holds a model already: name another folder")


def started(args: argparse.Namespace) -> tuple[Training, Text]:
    """A new run, as the options say.

    Raises:
        OSError, ImportError: the model or a text cannot be read.
        ValueError: an option or the text does not fit, or there is not enough memory.
    """
    before = used_memory() or 0
    options = dataclasses.replace(Options() if args.source else loop.FROM_SCRATCH, **given_options(args))
    model = loaded_model(args) if args.source else new_model(args, options)
    loop.check_options(options, model.hparams, spell)
    before = without_weights(model, before)
    text, of_text = read_text(args, model, options.documents)
    options, needed = fitting_memory(model.hparams, options, before + of_text, text)
    training = Training(model, text.ids, options)
    announce(training, text, needed)
    return training, text


def resumed(args: argparse.Namespace, folder: Path) -> tuple[Training, Text]:
    """The run in a folder, which goes on.

    Raises:
        FileNotFoundError: there is none.
        OSError, ImportError: it, or a text, cannot be read.
        ValueError: an option is not that of the run, the text is another one, all steps have been made, or there is not
            enough memory.
    """
    before = used_memory() or 0
    about = checkpoints.read_about(folder)
    model = load(folder, backend="numpy")
    check_same_run(args, folder, about["options"], about["source"], model)
    options = dataclasses.replace(about["options"], sparing=bool(args.sparing) or about["options"].sparing)
    steps = options.steps if args.steps is None else checks.check_whole_number("--steps", args.steps, at_least=1)
    if about["step"] >= steps:
        raise ValueError(f"the run in {folder} has made {about['step']} steps: --steps N goes on, up to N in all")
    before = without_weights(model, before)
    text, of_text = read_text(args, model, options.documents)
    fitting, needed = fitting_memory(model.hparams, options, before + of_text, text)
    training = checkpoints.restore(folder, text.ids, steps=steps, sparing=fitting.sparing)
    if training.n_threads != about["threads"]:
        message = "the run was on %d threads, and goes on with %d: the numbers may differ by rounding"
        log.info(message, about["threads"], training.n_threads)
    announce(training, text, needed)
    return training, text


def check_same_run(args: argparse.Namespace, folder: Path, options: Options, source: str, model: GPT2) -> None:
    """Checks that the options that are given say nothing else than those of a saved run.

    Raises:
        ValueError: one of them does.
    """
    saved = {**dataclasses.asdict(options), **model.hparams._asdict(), "from": source}
    given: dict[str, Any] = {**given_options(args), **given_shape(args)} | (
        {"from": args.source} if args.source else {}
    )
    for name, value in given.items():
        is_same = Path(value) == Path(saved[name]) if name == "from" else value == saved[name]
        if name not in ("steps", "sparing") and not is_same:
            option = spell(name) if value is True else f"{spell(name)} {value}"
            raise ValueError(
                f"{option} is not what the run in {folder} began with, {saved[name]}: leave it out, or begin another "
                "run in another folder"
            )
    if args.vocabulary and read_vocabulary(args).encoder != require(model.tokenizer).encoder:
        raise ValueError(f"--vocabulary {args.vocabulary} is not the vocabulary of the run in {folder}: leave it out")


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the options of `loop.Options` that are given."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Options)}
    for name in ("train_last", "lora_rank", "window"):  # 0 is for Python, where an option cannot be left out
        if values[name] is not None:
            checks.check_whole_number(spell(name), values[name], at_least=1)
    return {name: value for name, value in values.items() if value is not None}


def spell(name: str) -> str:
    """An option as it is on the command line.

    >>> spell("train_last")
    '--train-last'
    """
    return f"--{name.replace('_', '-')}"


def given_shape(args: argparse.Namespace) -> dict[str, int]:
    """The hyperparameters of a new model that are given."""
    return {name: getattr(args, name) for name in NEW if getattr(args, name) is not None}


def loaded_model(args: argparse.Namespace) -> GPT2:
    """The model to fine-tune.

    Raises:
        OSError, ImportError, ValueError: as for `gpt2.load`; or the options are also those of a new model.
    """
    others = [*given_shape(args), *(["vocabulary"] if args.vocabulary else [])]
    if others:
        raise ValueError(
            f"{spell(others[0])} is for a new model, and --from {args.source} has its own: leave out one of them"
        )
    model = load(args.source, args.models_dir, backend="numpy")
    if model.tokenizer is None:
        raise ValueError(f"{args.source} has no vocabulary to read a text with: copy vocab.json and merges.txt into it")
    return model


def new_model(args: argparse.Namespace, options: Options) -> GPT2:
    """A new model with random parameters.

    Raises:
        OSError: the vocabulary cannot be read.
        ValueError: no model has this shape, or there is not enough memory for it.
    """
    shape = given_shape(args)
    if not shape and not args.vocabulary:
        args.parser.error(
            "say what to train: --from tiny fine-tunes a model, and --n-layer, --n-head, --n-embd, --n-ctx and "
            "--vocabulary describe a new one"
        )
    tokenizer = read_vocabulary(args)
    hparams = HParams(n_vocab=tokenizer.n_vocab, **{**NEW, **shape})
    checks.check_hparams(hparams)
    loop.check_options(options, hparams, spell)
    fitting_memory(hparams, options, used_memory() or 0)  # before the parameters themselves are made
    return GPT2(hparams, init_params(hparams, options.seed), tokenizer, name="new")


def read_vocabulary(args: argparse.Namespace) -> Tokenizer:
    """The vocabulary of a new model.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    if args.vocabulary is None or args.vocabulary in RELEASED:
        return Tokenizer.gpt2()
    return Tokenizer.load(model_folder(args.vocabulary, args.models_dir))


def without_weights(model: GPT2, before: int) -> int:
    """How many bytes of memory the process takes without the parameters of a model that it has just loaded.

    Args:
        model: the model.
        before: how many it took before it loaded the model.
    """
    weights = model.params.wte.itemsize * count_params(model.hparams)
    return max(before, (used_memory() or 0) - weights)  # those that were converted have their file in memory as well


def fitting_memory(hparams: HParams, options: Options, before: int, text: Text | None = None) -> tuple[Options, int]:
    """The same options, but sparing if there would not be enough memory otherwise; and how many bytes are needed.

    Args:
        hparams, options: as for `Training`.
        before: how many bytes the process takes without the model.
        text: what the model is trained and evaluated with, if it has been read.

    Raises:
        ValueError: there is not enough memory even so.
    """
    available = available_memory()
    n_held_out = 0 if text is None or text.held_out is None else len(text.held_out)
    for choice in (options, dataclasses.replace(options, sparing=True)):
        needed = estimate(hparams, choice, count_threads() or 1, before, n_held_out)
        if available is None or needed - (used_memory() or 0) <= available:
            return choice, max(needed, peak_memory() or 0)
    raise ValueError(
        f"training takes about {in_bytes(needed)} of memory, and {in_bytes(available or 0)} are free: a smaller "
        "--window, --threads 1, --train-last N, --lora-rank N or a smaller model need less"
    )


def read_text(args: argparse.Namespace, model: GPT2, documents: bool) -> tuple[Text, int]:
    """The text to learn from, and the one to evaluate with; and how many bytes of memory they take.

    Args:
        args: the options.
        model: the model.
        documents: whether what is held out is to begin with a document.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not text, or has tokens that the model does not have; or the prompt is too long.
    """
    before = used_memory() or 0
    tokenizer = require(model.tokenizer)
    if len(tokenizer.encode(args.prompt)) >= model.hparams.n_ctx:
        raise ValueError(f"--prompt is too long: with what follows, it must fit into {model.hparams.n_ctx} tokens")
    check_standard_input([*args.files, args.held_out])
    ids = read_ids(args.files, model)
    if args.held_out is not None:
        text = Text(ids, read_ids([args.held_out], model))
    else:
        n = min(len(ids) // HELD_OUT, MOST_HELD_OUT)
        ends = np.flatnonzero(ids[: len(ids) - n] == tokenizer.end_of_text)
        cut = int(ends[-1]) + 1 if documents and len(ends) else len(ids) - n
        text = Text(ids[:cut], ids[cut:]) if n > 1 else Text(ids, None)
    if text.held_out is not None and len(text.held_out) < 2:
        raise ValueError(f"--held-out {args.held_out} is too short: its first token is not scored, so it needs two")
    return text, max(0, (used_memory() or 0) - before)


def read_ids(files: list[str], model: GPT2) -> Array:
    """The token ids of several files, with `<|endoftext|>` between them. Raises as `read_text`."""
    tokenizer = require(model.tokenizer)
    parts = []
    for file in files:
        ids, _ = encode(read_input(file), tokenizer, allow_special=True)
        if not ids:
            raise ValueError(f"{'standard input' if file == '-' else file} is empty")
        parts += [np.array([tokenizer.end_of_text], np.int32), np.array(ids, np.int32)]
    return checks.check_ids(np.concatenate(parts[1:]), model.hparams)[0]


def announce(training: Training, text: Text, needed: int) -> None:
    """Says what is going to be done, and how many bytes of memory that takes."""
    options, model = training.options, training.model
    n_held_out = 0 if text.held_out is None else len(text.held_out)
    n_trained = sum(m.size for m in training.optimizer.m.values())
    n_steps = options.steps - training.step
    passes = n_steps * options.batch_size * training.window / len(text.ids)
    log.info(
        "%s: %s parameters, %s of them trained; %s tokens of text, and %s held out; %d steps%s; about %s of memory",
        *(training.source, f"{count_params(model.hparams):,}", f"{n_trained:,}", f"{len(text.ids):,}"),
        *(f"{n_held_out:,}", n_steps, "" if options.documents else f", {passes:.2g} passes over the text"),
        in_bytes(needed),
    )
