"""The training loop.

One step is three lines of `Training.next_step`: the loss of a batch and its gradients, a limit to their length, and an
update of the parameters. Everything random in a step follows from the seed and the number of the step, so a run that
was stopped and goes on is the run that would have been.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..decoding.prompts import require
from ..evaluation.scoring import IGNORED
from ..gpt2 import GPT2
from ..machine.threads import count_threads
from ..params import Array, HParams, named_arrays
from . import batches, lora
from .forward import Dropout
from .gradients import Wanted
from .optimizer import OPTIMIZERS, arrays, clip_by_global_norm, learning_rate
from .parallel import batch_gradients, bits_per_byte

LONGEST_WINDOW = 256  # tokens, unless more are asked for: longer ones make slower steps
N_SAMPLE = 48  # new tokens of a sample


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides which numbers a run computes, apart from the model, the text and the number of threads."""

    steps: int = 1000  # how many there are, after which the learning rate has fallen
    batch_size: int = 8  # texts in a batch
    window: int = 0  # the most tokens of a text that are read at once; 0 for all of the context, or 256
    documents: bool = False  # whole documents that `<|endoftext|>` separates, in place of windows that begin anywhere
    learning_rate: float = 3e-4  # the highest; it ends at a tenth of it
    warmup: int = 100  # steps in which the learning rate rises; at most a tenth of all
    weight_decay: float = 0.1
    optimizer: str = "adamw"  # or "muon", for new models: see `optimizer.Muon`
    clip: float = 1.0  # the greatest length of the gradients
    dropout: float = 0.0
    train_last: int = 0  # how many blocks are trained, with the last layer norm; 0 for the whole model
    lora_rank: int = 0  # of low-rank updates; 0 for none
    sparing: bool = False  # less memory, and a quarter more time; the numbers are the same
    seed: int = 0


FROM_SCRATCH = Options(learning_rate=1e-3, dropout=0.1)  # the defaults for a new model


class Step(NamedTuple):
    """What is reported about a step."""

    step: int  # how many have been made
    loss: float  # of its batch, before it, in nats per token
    norm: float  # the length of the gradients, before they were shortened
    learning_rate: float
    n_tokens: int  # how many were predicted


def check_options(options: Options, hparams: HParams, spell: Callable[[str], str] = str) -> None:
    """Checks options from outside.

    Args:
        options: the options.
        hparams: those of the model.
        spell: how an option is called in a message, given its name.

    Raises:
        ValueError: one of them is out of its range.
    """
    most = {"window": hparams.n_ctx, "train_last": hparams.n_layer, "lora_rank": hparams.n_embd}
    least = {"steps": 1, "batch_size": 1}
    for name in ("steps", "batch_size", "window", "warmup", "train_last", "lora_rank", "seed"):
        value = getattr(options, name)
        checks.check_whole_number(spell(name), value, at_least=least.get(name, 0), at_most=most.get(name, math.inf))
    if options.optimizer not in tuple(OPTIMIZERS):
        raise ValueError(f"{spell('optimizer')} must be {' or '.join(OPTIMIZERS)}, not {options.optimizer!r}")
    ranges: list[tuple[str, Callable[[float], bool], str]] = [
        ("learning_rate", lambda x: 0 < x < math.inf, "above 0"),
        ("clip", lambda x: 0 < x < math.inf, "above 0"),
        ("weight_decay", lambda x: 0 <= x < math.inf, "of at least 0"),
        ("dropout", lambda x: 0 <= x < 1, "of at least 0 and less than 1"),
    ]
    for name, is_in_range, range_of in ranges:
        value = getattr(options, name)
        if not isinstance(value, numbers.Real) or not is_in_range(float(value)):
            raise ValueError(f"{spell(name)} must be a number {range_of}, not {value!r}")


def window(options: Options, hparams: HParams) -> int:
    """The most tokens of a text that are read at once."""
    return options.window or min(hparams.n_ctx, LONGEST_WINDOW)


def trained(model: GPT2, options: Options) -> dict[str, Array]:
    """The parameters that are trained, by name."""
    first_block = model.hparams.n_layer - options.train_last
    prefixes = *(f"h{i}/" for i in range(first_block, model.hparams.n_layer)), "ln_f/"
    named = named_arrays(model.params)
    return {name: array for name, array in named if not options.train_last or name.startswith(prefixes)}


class DivergedError(ValueError):
    """A loss, or gradients, that are not finite numbers."""


class Training:
    """A model that learns from a text. It is changed in place, step by step.

    Attributes:
        model, options, ids: as given.
        n_threads: how many threads share a batch.
        source: the name of the model that the run began with.
        step: how many steps have been made.
        window: the most tokens of a text that are read at once.
        random_batch: chooses a batch, given a generator of random numbers.
        wanted: which derivatives are computed.
        optimizer: AdamW or Muon, with its means.
        adapters: the low-rank updates, if those are what is learned.
        is_torn: whether a step was interrupted while it changed the parameters, so that they are of no step.
    """

    def __init__(self, model: GPT2, ids: Array, options: Options = Options(), n_threads: int | None = None) -> None:
        """Begins a run.

        Args:
            model: the model, in main memory.
            ids: the text, `[n]`.
            options: how to train.
            n_threads: by default, as many as matrix products use outside.

        Raises:
            ValueError: an option is out of its range, the text is not of this model or too short for a window, or there
                are no documents in it.
        """
        check_options(options, model.hparams)
        if model.backend != "numpy":
            raise ValueError('training computes in main memory: model.to("numpy") brings the model there')
        self.ids, *others = checks.check_ids(ids, model.hparams)
        if others:
            raise ValueError("the text must be one row of token ids, not several")
        self.model, self.options, self.source, self.step = model, options, model.name, 0
        self.n_threads = n_threads or count_threads() or 1
        self.window = window(options, model.hparams)
        end_of_text = require(model.tokenizer).end_of_text if options.documents else None
        self.random_batch = batches.chooser(self.ids, options.batch_size, self.window, end_of_text)
        first_block = model.hparams.n_layer - options.train_last if options.train_last else 0
        self.wanted = Wanted(first_block, embeddings=not (options.train_last or options.lora_rank))
        named, self.adapters = trained(model, options), None
        if options.lora_rank:
            matrices = {name: w for name, w in named.items() if name.startswith("h") and w.ndim > 1}
            self.adapters = lora.adapters(matrices, options.lora_rank, options.seed)
        learned = self.adapters.arrays if self.adapters else named
        self.optimizer = OPTIMIZERS[options.optimizer](learned, weight_decay=options.weight_decay)
        self.is_torn = False

    @property
    def n_workers(self) -> int:
        """How many threads have texts of their own. A single one leaves its products to the threads of the BLAS."""
        return min(self.n_threads, self.options.batch_size)

    def next_step(self) -> Step:
        """Makes a step: gradients, clipped, and an update.

        Raises:
            DivergedError: the loss or the gradients are not finite numbers; the parameters stay as they were.
        """
        loss, grads, n_tokens = self.gradients()
        norm = clip_by_global_norm(grads, self.options.clip, self.n_threads)
        self.check_finite(loss, norm)
        rate = self.learning_rate()
        self.is_torn = True
        self.optimizer.update(self.learned(), grads, rate, self.n_threads)
        if self.adapters is not None:
            self.adapters.merge_into(arrays(self.model.params))
        self.step += 1
        self.is_torn = False
        return Step(self.step, loss, norm, rate, n_tokens)

    def gradients(self) -> tuple[float, Mapping[str, Array], int]:
        """Of the next batch: the loss, its derivatives by the names of what is learned, and how many tokens count."""
        options, model = self.options, self.model
        ids, targets = self.random_batch(np.random.default_rng((options.seed, self.step)))
        drop = Dropout(options.dropout, (options.seed, self.step))
        given = ids, targets, model.params, model.hparams.n_head, self.n_threads
        loss, tree = batch_gradients(*given, drop, options.sparing, self.wanted)
        grads = arrays(tree) if self.adapters is None else self.adapters.gradients(arrays(tree))
        return loss, grads, int(np.count_nonzero(targets != IGNORED))

    def learned(self) -> Mapping[str, Array]:
        """The arrays that are learned, by name."""
        return arrays(self.model.params) if self.adapters is None else self.adapters.arrays

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        highest, steps = self.options.learning_rate, self.options.steps
        return learning_rate(self.step, steps, highest, highest / 10, min(self.options.warmup, steps // 10))

    def check(self) -> None:
        """Checks that the next step can be made: a run that cannot go on must not take the place of one that can.

        Raises:
            DivergedError: its loss or gradients are not finite.
        """
        loss, grads, _ = self.gradients()
        self.check_finite(loss, clip_by_global_norm(grads, math.inf, self.n_threads))

    def check_finite(self, loss: float, norm: float) -> None:
        """Checks what was computed for the next step.

        Raises:
            DivergedError: it is not finite.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"step {self.step + 1} cannot be made: its loss is {loss:.4g}, the length of its gradients {norm:.4g}. "
                "Try a lower learning rate; `numpy-gpt2 explore params` says whether a model has parameters that are "
                "NaN or infinity"
            )

    def digest(self) -> str:
        """The SHA-256 of the text, as ids: what a run that goes on must have again."""
        return hashlib.sha256(self.ids.astype("<i4").tobytes()).hexdigest()


class Report(NamedTuple):
    """A step, and what was done after it."""

    step: Step
    bits_per_byte: float | None = None  # of the held-out text
    sample: str | None = None  # what the model writes


def run(
    training: Training,
    held_out: Array | None = None,
    evaluate_every: int = 200,
    prompt: str = "",
    save: Callable[[Training], Any] = lambda training: None,
    save_every: int = 500,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Report]:
    """Makes the steps that are left, one after another.

    Args:
        training: the run.
        held_out: a text that is not learned from, `[n]`, on which the model is evaluated; None for no evaluation.
        evaluate_every: after how many steps the model is evaluated, and writes a sample; also after the last.
        prompt: what the samples continue.
        save: called to save the run, after the report of its step.
        save_every: after how many steps; also after the last.
        stop: asked after each step whether it is to be the last for now.

    Raises:
        DivergedError: as for `Training.next_step`.
        OSError: the run cannot be saved.
        ValueError: the prompt does not fit into the context.
    """
    while training.step < training.options.steps:
        step = training.next_step()
        is_last = step.step == training.options.steps
        evaluates, saves = is_last or step.step % evaluate_every == 0, is_last or step.step % save_every == 0
        if evaluates or saves:
            training.check()
        if evaluates:
            yield Report(step, evaluate(training, held_out), sample(training.model, prompt, training.options.seed))
        else:
            yield Report(step)
        stops = stop()
        if stops and not (evaluates or saves):
            training.check()
        if stops or saves:
            save(training)
        if stops:
            return


def evaluate(training: Training, held_out: Array | None) -> float | None:
    """The bits per byte of a text, all but its first token; None without one, or without a vocabulary."""
    model = training.model
    if held_out is None or len(held_out) < 2 or model.tokenizer is None:
        return None
    n_bytes = len(model.tokenizer.decode_bytes(held_out[1:].tolist()))
    return bits_per_byte(held_out, n_bytes, model.params, model.hparams.n_head, training.n_workers)


def sample(model: GPT2, prompt: str, seed: int) -> str | None:
    """What the model writes after a prompt; None without a vocabulary."""
    if model.tokenizer is None:
        return None
    room = model.hparams.n_ctx - len(model.tokenizer.encode(prompt)) - 1
    return prompt + str(model.generate(prompt, max_new_tokens=max(1, min(N_SAMPLE, room)), seed=seed))
