"""`numpy-gpt2 train`: trains a new model on a text, or fine-tunes one."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..hub.names import expand
from ..machine.files import write_text
from ..machine.threads import set_threads
from ..training import checkpoints, loop
from ..training.loop import Options, Report, Training
from ..training.optimizer import OPTIMIZERS
from . import interrupts
from .arguments import add_message_options, add_models_dir, add_threads
from .folders import output_folder, reserved
from .pictures import drawing
from .process import progress_bar, show
from .runs import LOCK, NEW, Text, check_output, resumed, spell, started

log = logging.getLogger("numpy_gpt2")

HELP = "train a new model on a text, or fine-tune one"
DESCRIPTION = """\
Train a new GPT-2 on a text, or fine-tune one, and save it in a folder that every command opens with --model.

A part of the text is held out: the model does not learn from it, and is measured with it, in bits per byte.
Ctrl-C finishes the step and saves; with --resume the run continues as if it had never stopped.
"""
EXAMPLES = """\
  numpy-gpt2 train stories.txt --from tiny --output my-model
  numpy-gpt2 train stories.txt --output my-model --resume
  numpy-gpt2 train stories.txt --n-layer 4 --n-head 4 --n-embd 128 --n-ctx 128 --vocabulary tiny --output new-model
  numpy-gpt2 train letters.txt --from gpt2 --lora-rank 8 --output my-gpt2
  numpy-gpt2 "Once upon a time" --model my-model
"""

LOG = "training.jsonl"  # in the folder of the model


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options. Those that decide what a run computes are None unless they are given."""
    whole: dict[str, Any] = {"type": int, "metavar": "N"}
    real: dict[str, Any] = {"type": float, "metavar": "X"}
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="text in UTF-8; - for standard input. <|endoftext|> in it separates documents, and is put between files",
    )
    parser.add_argument("--output", "-o", metavar="DIR", required=True, help="the folder to save the model to")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder")

    group = parser.add_argument_group("what is trained")
    group.add_argument("--from", dest="source", metavar="NAME", help="fine-tune this model: a name or a folder")
    add_models_dir(group)
    group.add_argument("--train-last", help="only the last N blocks, and the last layer norm", **whole)
    group.add_argument(
        "--lora-rank",
        help="low-rank updates of this rank, which are merged when the model is saved: less memory; a learning rate "
        "several times as high suits them",
        **whole,
    )
    for (name, default), what in zip(NEW.items(), ("blocks", "heads", "width", "context, in tokens"), strict=True):
        group.add_argument(spell(name), help=f"of a new model: {what} (default: {default})", **whole)
    group.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="of a new model: a folder with encoder.json and vocab.bpe, or a model (default: GPT-2's, of 50257 tokens)",
    )

    group = parser.add_argument_group("how it is trained")
    new = loop.FROM_SCRATCH
    group.add_argument("--steps", help=f"how many steps (default: {Options.steps})", **whole)
    group.add_argument("--batch-size", help=f"texts in a step (default: {Options.batch_size})", **whole)
    group.add_argument(
        "--window", help=f"tokens of each text (default: {loop.LONGEST_WINDOW}, or all of a smaller context)", **whole
    )
    group.add_argument(
        "--documents",
        action="store_const",
        const=True,
        help="learn from whole documents, in place of windows that begin anywhere",
    )
    rates = f"(default: {Options.learning_rate:g}; for a new model, {new.learning_rate:g})"
    group.add_argument("--learning-rate", "--lr", help=f"the highest; it ends at a tenth of it {rates}", **real)
    group.add_argument(
        "--warmup",
        help=f"steps in which it rises, at most a tenth of all (default: {Options.warmup})",
        **whole,
    )
    group.add_argument(
        "--weight-decay", help=f"how fast weights fall towards 0 (default: {Options.weight_decay})", **real
    )
    group.add_argument(
        "--optimizer",
        choices=tuple(OPTIMIZERS),
        help="muon makes more of each step of a new model, and takes more time for it; a learning rate of about 4e-3 "
        f"suits it (default: {Options.optimizer})",
    )
    group.add_argument("--clip", help=f"the greatest length of the gradients (default: {Options.clip})", **real)
    rates = f"(default: {Options.dropout}; for a new model, {new.dropout})"
    group.add_argument("--dropout", help=f"the share of numbers that are set to 0 {rates}", **real)
    group.add_argument("--seed", help=f"the same seed gives the same model (default: {Options.seed})", **whole)
    group.add_argument(
        "--sparing",
        action="store_const",
        const=True,
        help="take less memory and a quarter more time (default: if the memory would not be enough otherwise)",
    )
    add_threads(group)

    group = parser.add_argument_group("what is said and saved on the way")
    group.add_argument("--held-out", metavar="FILE", help="a text to evaluate with (default: the end of the text)")
    group.add_argument("--evaluate-every", default=200, help="evaluate after N steps (default: %(default)s)", **whole)
    group.add_argument("--prompt", default="", metavar="TEXT", help="what the samples continue (default: nothing)")
    group.add_argument("--save-every", default=500, help="save after N steps (default: %(default)s)", **whole)
    group.add_argument(
        "--log", metavar="FILE", type=Path, help=f"a line of JSON for each step (default: {LOG} in the folder)"
    )
    group.add_argument("--loss-picture", metavar="FILE", type=Path, help="draw the loss: .png, .svg or .pdf")
    add_message_options(parser)


def run(args: argparse.Namespace) -> None:
    """Trains a model, and saves it."""
    draw = drawing(args.loss_picture, "training.figures")
    for name in ("evaluate_every", "save_every"):
        checks.check_whole_number(spell(name), getattr(args, name), at_least=1)
    if args.threads is not None:
        set_threads(checks.check_whole_number("--threads", args.threads, at_least=1))
    folder = output_folder(args.output)
    check_output(folder, args)
    with reserved(folder, LOCK, "training the model"):
        file = args.log or folder / LOG
        before = checked_log(file, args)
        training, text = resumed(args, folder) if args.resume else started(args)
        lines = [line for line in before if line["step"] <= training.step]  # the others are of steps not saved
        write_text(file, "".join(map(json_line, lines)))
        with (
            interrupts.deferred("finishing this step, and saving; Ctrl-C again ends at once") as interrupted,
            file.open("a", encoding="utf-8") as opened,
        ):
            for line in steps(training, text, args, folder, interrupted, lines[-1].get("seconds", 0) if lines else 0):
                lines.append(line)
                opened.write(json_line(line))
                opened.flush()
        say_end(training, args, folder)
        if draw:
            draw.save_figure(draw.loss_figure(lines, str(folder)), args.loss_picture)
            log.info("the picture is in %s", args.loss_picture)
    if training.step < training.options.steps:
        raise KeyboardInterrupt


def steps(
    training: Training,
    text: Text,
    args: argparse.Namespace,
    folder: Path,
    stop: Callable[[], bool],
    seconds_before: float,
) -> Iterator[dict[str, Any]]:
    """Makes the steps, shows them, and returns what the log says of each.

    Raises:
        DivergedError: the loss or the gradients are not finite.
        OSError: the run cannot be saved; or standard output cannot be written, and the run was saved.
    """
    start, saved = time.monotonic(), [training.step] if args.resume else []
    unwritable: list[OSError] = []  # why standard output is
    n_tokens, losses = 0, []
    if training.step == 0 and (bits := loop.evaluate(training, text.held_out)) is not None:
        show(f"before the first step: {bits:.4f} bits per byte of the held-out text")
        yield {"step": 0, "bits_per_byte": bits}

    def save(training: Training) -> None:
        checkpoints.save(training, folder)
        saved.append(training.step)

    every = args.evaluate_every, args.prompt, save, args.save_every
    reports = loop.run(training, text.held_out, *every, lambda: stop() or bool(unwritable))
    with progress_bar(training.options.steps - training.step, "step") as bar, where_it_is(folder, saved):
        for report in reports:
            seconds = time.monotonic() - start
            n_tokens += report.step.n_tokens
            losses.append(report.step.loss)
            rate = f"{n_tokens / max(seconds, 1e-9):.0f} tokens/s"
            bar.set_postfix_str(f"loss {report.step.loss:.3f}, {rate}", refresh=False)
            bar.update()
            if report.sample is not None:
                bar.clear()
                try:
                    show_report(report, float(np.mean(losses)), rate)
                except OSError as error:
                    unwritable.append(error)
                losses = []
            more = {"bits_per_byte": report.bits_per_byte, "sample": report.sample}
            more = {name: value for name, value in more.items() if value is not None}
            yield {**report.step._asdict(), **more, "seconds": round(seconds_before + seconds, 3)}
    if unwritable:
        raise unwritable[0]


@contextlib.contextmanager
def where_it_is(folder: Path, saved: list[int]) -> Iterator[None]:
    """Adds to the message of a run that diverges which of its steps was saved last.

    Raises:
        DivergedError: the run diverges.
    """
    try:
        yield
    except loop.DivergedError as error:
        last = f"{folder} holds step {saved[-1]}, which was saved last" if saved else "nothing was saved"
        raise loop.DivergedError(f"{error}; {last}") from None


def show_report(report: Report, loss: float, rate: str) -> None:
    """Prints how far the run is, and what the model writes now.

    Args:
        report: the report of a step at which the model was evaluated.
        loss: the mean over the steps since the last one.
        rate: tokens a second.
    """
    bits = "" if report.bits_per_byte is None else f", {report.bits_per_byte:.4f} bits per byte of the held-out text"
    show(f"step {report.step.step}: mean loss {loss:.4f}{bits}, {rate}")
    show(f"    sample: {' '.join((report.sample or '').split())}")


def say_end(training: Training, args: argparse.Namespace, folder: Path) -> None:
    """Says where the model is or, if there are steps left, how to go on."""
    if training.step == training.options.steps:
        log.info('the model is in %s: numpy-gpt2 "Once upon a time" --model %s', folder, shlex.quote(str(folder)))
        return
    log.warning(
        "stopped after step %d of %d, and saved; to go on: %s", training.step, training.options.steps, go_on(args)
    )


def go_on(args: argparse.Namespace) -> str:
    """The command that goes on with a run: with the options that it does not remember, where they are given."""
    words = ["numpy-gpt2", "train", *args.files, "--output", args.output, "--resume"]
    for name in ("held_out", "log", "loss_picture", "prompt", "evaluate_every", "save_every", "threads"):
        if (value := getattr(args, name)) != args.parser.get_default(name):
            words += [spell(name), str(value)]
    return shlex.join(words)


def checked_log(file: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of the log of a run that goes on; none for a new one.

    Raises:
        OSError: the log cannot be read.
        ValueError: it must not be written there, since there is something else, or another log.
    """
    given = [Path(name) for name in (*args.files, args.held_out, args.loss_picture) if name not in (None, "-")]
    if file.resolve() in [name.resolve() for name in given]:
        raise ValueError(f"--log {file} is also the name of another file of this run")
    if file.name != LOG and file.resolve().parent == expand(args.output).resolve():
        raise ValueError(f"--log {file} would be among the files of the model, where a log is {LOG}")
    if not file.exists():
        if args.log and not file.parent.is_dir():
            raise ValueError(f"--log {file} is not the name of a file in a folder that exists")
        return []
    lines = read_log(file) if file.is_file() else None
    if lines is None:
        raise ValueError(f"{file} exists, and is no log of a run: name another file with --log")
    if args.log and lines and not args.resume:
        raise ValueError(f"{file} is the log of another run: name another file with --log")
    return lines if args.resume else []


def read_log(file: Path) -> list[dict[str, Any]] | None:
    """The lines of a log, without one that a kill has cut off at its end; None for a file that is no log."""
    lines = []
    text = file.read_bytes().decode(errors="replace").splitlines()
    for number, line in enumerate(text, start=1):
        try:
            values = json.loads(line)
            if not (isinstance(values["step"], int) and isinstance(values.get("seconds", 0), int | float)):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            if number < len(text) or number == 1:
                return None
        else:
            lines.append(values)
    return lines


def json_line(values: dict[str, Any]) -> str:
    """A line of the log."""
    return json.dumps(values) + "\n"
