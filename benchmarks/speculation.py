"""Speculative decoding at full size: given texts are written with drafts and without.

The models of the benchmark are random. What they would write is like no text that a person asks for, and nothing in it
could be drafted. So the model computes all that it would, and its choice is replaced by the next token of a given text.
What this costs is what it would cost a model that writes this text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

import numpy as np

import numpy_gpt2
from numpy_gpt2 import GPT2, HParams, sampling
from numpy_gpt2.decoding import speculation
from numpy_gpt2.decoding.assistant import Assistant
from numpy_gpt2.decoding.lookup import Lookup
from numpy_gpt2.decoding.row import Drafter, Row
from numpy_gpt2.generation import generate_batch
from numpy_gpt2.params import Array
from numpy_gpt2.tokenizer import Tokenizer

# Writes a continuation of a prompt with a drafter, "lookup", "assistant" or None. Returns the time of each token.
Write: TypeAlias = Callable[[list[int], list[int], str | None], list[float]]

N_TOKENS = 200  # of a prompt, and of what is written after it
N_CHARACTERS = 4000  # enough for both
REPEATED = 25  # tokens of the passage that is repeated
CHANGED = 25  # One in so many words of a copy is another one.
AGREEMENT = 0.7  # how often a token that the assistant drafts is right
N_LAYER = 6  # of the assistant


def tales(corpus: Path | None) -> str:
    """The text to take passages from: the corpus, or else tales that `tiny` writes.

    Raises:
        OSError: the corpus cannot be read.
        RuntimeError: the corpus is too short.
    """
    if corpus is None:
        return "\n\n".join(numpy_gpt2.load("tiny").generate("", 250, num_return_sequences=8, seed=0))
    text = corpus.read_bytes()[:4_000_000].decode("utf-8", "ignore")
    if len(text) < N_CHARACTERS:
        raise RuntimeError(f"{corpus} is too short for speculation, which needs {N_CHARACTERS} characters")
    return text


def tasks(text: str, rng: random.Random) -> dict[str, tuple[list[int], list[int], str]]:
    """What is to be written, from a passage at a random place of a text: a prompt, its continuation, and the drafter.

    Raises:
        RuntimeError: the passage has too few tokens.
    """
    tokenizer = Tokenizer.gpt2()
    start = rng.randrange(len(text) - N_CHARACTERS + 1)
    ids = tokenizer.encode(text[start : start + N_CHARACTERS])[: 2 * N_TOKENS]
    if len(ids) < 2 * N_TOKENS:
        raise RuntimeError(f"the corpus is no natural text: {N_CHARACTERS} characters are only {len(ids)} tokens")
    first, second = ids[:N_TOKENS], ids[N_TOKENS:]
    paragraph = tokenizer.decode(first).strip()
    copy = tokenizer.encode(paragraph + "\n\n"), tokenizer.encode(change(paragraph, rng))
    repeated = (ids[:REPEATED] * (N_TOKENS // REPEATED),) * 2
    return {
        "a paragraph again with changes, lookup": (*copy, "lookup"),
        "a text that repeats itself, lookup": (*repeated, "lookup"),
        "prose, lookup": (first, second, "lookup"),
        f"prose, an assistant of {N_LAYER} layers": (first, second, "assistant"),
    }


def change(text: str, rng: random.Random) -> str:
    """The text, in which one in CHANGED words is replaced by another one of its words."""
    words = text.split(" ")
    for i in range(CHANGED // 2, len(words), CHANGED):
        words[i] = rng.choice(words)
    return " ".join(words)


def assistant_shape(hparams: HParams) -> HParams:
    """The shape of the assistant: as wide as the model, with fewer layers, as distilgpt2 is."""
    return hparams._replace(n_layer=min(N_LAYER, hparams.n_layer))


def assistant_folder(model: Path) -> Path:
    """The folder of the assistant, beside that of the model."""
    return model.with_name(f"{model.name}-assistant")


def load(folder: Path) -> Write:
    """Loads a model and its assistant."""
    model, assistant = numpy_gpt2.load(folder), numpy_gpt2.load(assistant_folder(folder))
    rng = np.random.default_rng(0)

    def write(prompt: list[int], continuation: list[int], drafter: str | None) -> list[float]:
        text = prompt + continuation
        drafters: dict[str | None, Callable[[], Drafter | None]] = {
            "lookup": lambda: Lookup(speculation.MOST),
            "assistant": lambda: AgreeingAssistant(assistant, model.hparams, text, rng),
            None: lambda: None,
        }
        choose = partial(choose_given, text, rng)
        row = Row(prompt, choose, len(continuation), with_log_probabilities=False, drafter=drafters[drafter]())
        loop = speculation.generate_each if row.drafter else generate_batch
        moments = [perf_counter() for _ in loop([row], model.params, model.hparams.n_head)]
        speculation.log_drafts([row])
        return moments

    return write


def choose_given(text: Sequence[int], rng: np.random.Generator, logits: Array, ids: Sequence[int]) -> int:
    """For `Row`: the next token of a given text, after the time that it takes to choose the likeliest one."""
    sampling.next_token(logits, rng, ids, temperature=0)
    return text[len(ids)]


class AgreeingAssistant(Assistant):
    """An assistant that computes all that it would, and then drafts a token that is right as often as AGREEMENT says.

    Args:
        assistant, hparams, rng: as for `Assistant`.
        text: the tokens of the prompt and of the given continuation.
    """

    def __init__(self, assistant: GPT2, hparams: HParams, text: Sequence[int], rng: np.random.Generator) -> None:
        super().__init__(assistant, hparams, rng, {"temperature": 0})
        self._text = text
        self._n_vocab = hparams.n_vocab

    def _draw(self, logits: Array, ids: list[int]) -> int:
        super()._draw(logits, ids)
        right = self._text[len(ids)]
        return right if self._rng.random() < AGREEMENT else (right + 1) % self._n_vocab
