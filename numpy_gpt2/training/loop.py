"""The training loop.

One step is three lines of `Training.next_step`: the loss of a batch and its gradients, a limit to their length, and an
update of the parameters. Everything random in a step follows from the seed and the number of the step, so a run that
was stopped and goes on is the run that would have been.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
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
from .optimizer import AdamW, clip_by_global_norm, learning_rate
from .parallel import arrays, batch_gradients, bits_per_byte

log = logging.getLogger(__name__)

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
    clip: float = 1.0  # the greatest length of the gradients
    dropout: float = 0.0
    train_last: int = 0  # how many blocks are trained, with the last layer norm; 0 for the whole model
    lora_rank: int = 0  # of low-rank updates; 0 for none
    sparing: bool = False  # less memory, and a third more time; the numbers are the same
    seed: int = 0


FROM_SCRATCH = Options(learning_rate=1e-3, dropout=0.1)  # the defaults for a new model


class Step(NamedTuple):
    """What there is to say of a step."""

    step: int  # how many have been made
    loss: float  # of its batch, before it, in nats per token
    norm: float  # the length of the gradients, before they were shortened
    learning_rate: float
    n_tokens: int  # how many were predicted


def check_options(options: Options, hparams: HParams) -> None:
    """Checks options from outside.

    Raises:
        ValueError: one of them is out of its range.
    """
    checks.check_whole_number("steps", options.steps, at_least=1)
    checks.check_whole_number("batch_size", options.batch_size, at_least=1)
    checks.check_whole_number("window", options.window, at_most=hparams.n_ctx)
    checks.check_whole_number("warmup", options.warmup)
    checks.check_whole_number("train_last", options.train_last, at_most=hparams.n_layer)
    checks.check_whole_number("lora_rank", options.lora_rank, at_most=hparams.n_embd)
    checks.check_whole_number("seed", options.seed)
    for name in ("learning_rate", "clip"):
        if not 0 < getattr(options, name) < math.inf:
            raise ValueError(f"{name} must be a number above 0, not {getattr(options, name)!r}")
    if not 0 <= options.weight_decay < math.inf:
        raise ValueError(f"weight_decay must be 0 or more, not {options.weight_decay!r}")
    if not 0 <= options.dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, not {options.dropout!r}")


def window(options: Options, hparams: HParams) -> int:
    """The most tokens of a text that are read at once."""
    return options.window or min(hparams.n_ctx, LONGEST_WINDOW)


class Training:
    """A model that learns from a text. It is changed in place, step by step.

    Attributes:
        model, options, ids: as given.
        n_threads: how many threads share a batch.
        source: the name of the model that the run began with.
        step: how many steps have been made.
        window: the most tokens of a text that are read at once.
        optimizer: AdamW, with its means.
        adapters: the low-rank updates, if those are what is learned.
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
        self.model, self.options = model, options
        self.ids, *others = checks.check_ids(ids, model.hparams)
        if others:
            raise ValueError("the text must be one row of token ids, not several")
        self.n_threads = n_threads or count_threads() or 1
        self.source = model.name
        self.step = 0
        self.window = window(options, model.hparams)
        self.documents: list[Array] = []
        if options.documents:
            self.documents = batches.split_documents(self.ids, require(model.tokenizer).end_of_text)
            if not self.documents:
                raise ValueError("there is no document in the text: it has nothing but <|endoftext|>")
        elif len(self.ids) <= self.window:
            raise ValueError(
                f"the text has {len(self.ids)} tokens, and a window takes {self.window + 1}, with the token that "
                "follows: give a longer text, or a smaller window"
            )
        n_layer = model.hparams.n_layer
        self.first_block = n_layer - options.train_last if options.train_last else 0
        prefixes = tuple(f"h{i}/" for i in range(self.first_block, n_layer))
        named = {
            name: array
            for name, array in named_arrays(model.params)
            if not options.train_last or name.startswith((*prefixes, "ln_f/"))
        }
        self.adapters: lora.Adapters | None = None
        if options.lora_rank:
            matrices = {name: w for name, w in named.items() if name.startswith(prefixes) and name.endswith("/w")}
            self.adapters = lora.adapters(matrices, options.lora_rank, options.seed)
        self.optimizer = AdamW(self.adapters.arrays if self.adapters else named, weight_decay=options.weight_decay)

    @property
    def n_workers(self) -> int:
        """How many threads have texts of their own. A single one leaves its products to the threads of the BLAS."""
        return min(self.n_threads, self.options.batch_size)

    def batch(self) -> tuple[Array, Array]:
        """What the next step learns from: ids and targets, `[n_batch, n_seq]`."""
        rng = np.random.default_rng((self.options.seed, self.step))
        size = self.options.batch_size, self.window
        if self.documents:
            return batches.random_documents(self.documents, require(self.model.tokenizer).end_of_text, *size, rng)
        return batches.random_windows(self.ids, *size, rng)

    def next_step(self) -> Step:
        """Makes a step: gradients, clipped, and an update.

        Raises:
            ValueError: the loss or the gradients are not finite numbers; the parameters stay as they were.
        """
        loss, grads, n_tokens = self.gradients()
        norm = clip_by_global_norm(grads, self.options.clip, self.n_threads)
        self.check_finite(loss, norm)
        rate = self.learning_rate()
        self.optimizer.update(self.learned(), grads, rate, self.n_threads)
        if self.adapters is not None:
            self.adapters.merge_into(arrays(self.model.params))
        self.step += 1
        return Step(self.step, loss, norm, rate, n_tokens)

    def gradients(self) -> tuple[float, Mapping[str, Array], int]:
        """Of the next batch: the loss, its derivatives by the names of what is learned, and how many tokens count."""
        ids, targets = self.batch()
        options = self.options
        loss, tree = batch_gradients(
            ids,
            targets,
            self.model.params,
            self.model.hparams.n_head,
            self.n_threads,
            Dropout(options.dropout, (options.seed, self.step)),
            options.sparing,
            self.first_block,
            embeddings=not (options.train_last or options.lora_rank),
        )
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
            ValueError: its loss or gradients are not finite.
        """
        loss, grads, _ = self.gradients()
        self.check_finite(loss, clip_by_global_norm(grads, math.inf, self.n_threads))

    def check_finite(self, loss: float, norm: float) -> None:
        """Checks what was computed for the next step.

        Raises:
            ValueError: it is not finite.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(
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
        ValueError: as for `Training.next_step`.
        OSError: the run cannot be saved.
    """
    while training.step < training.options.steps:
        step = training.next_step()
        is_last = training.step == training.options.steps
        if is_last or training.step % evaluate_every == 0:
            training.check()
            yield Report(step, evaluate(training, held_out), sample(training.model, prompt, training.options.seed))
        else:
            yield Report(step)
        is_last = is_last or stop()
        if is_last or training.step % save_every == 0:
            training.check()
            save(training)
        if is_last:
            return


def evaluate(training: Training, held_out: Array | None) -> float | None:
    """The bits per byte of a text, all but its first token; None without one."""
    if held_out is None or len(held_out) < 2:
        return None
    model = training.model
    n_bytes = len(require(model.tokenizer).decode_bytes(held_out[1:].tolist()))
    return bits_per_byte(held_out, n_bytes, model.params, model.hparams.n_head, training.n_workers)


def sample(model: GPT2, prompt: str, seed: int) -> str | None:
    """What the model writes after a prompt; None without a vocabulary."""
    if model.tokenizer is None:
        return None
    room = model.hparams.n_ctx - len(model.tokenizer.encode(prompt)) - 1
    return prompt + str(model.generate(prompt, max_new_tokens=max(1, min(N_SAMPLE, room)), seed=seed))
