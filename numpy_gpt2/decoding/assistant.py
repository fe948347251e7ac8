"""Drafts from an assistant: a smaller model with the same vocabulary.

At temperature 0, a drafted token is right if it is the likeliest one for the model, too. Otherwise two draws would
seldom be equal, even from similar distributions. So the model does not draw another token, but accepts the drafted one
as often as it can without changing the distribution of the text: `accept`.

Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", algorithm 1; Chen et al.
2023, "Accelerating Large Language Model Decoding with Speculative Sampling", algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import layers, model, sampling
from ..cache import Past
from ..machine.backend import to_host
from ..params import Array, HParams, Params, count_params
from ..tokenizer import Tokenizer
from . import prefill, speculation
from .row import Row

FIRST_CHANCE = 0.9  # that a drafted token is right, before anything is known: a slow assistant is tried, too
LATELY = 1 / 8  # The weight of the last drafted token in the share of right ones.

# How far that share returns to the first estimate with each token for which nothing was drafted. So a bad assistant is
# tried again every 50 tokens or so, which takes about 2 % of the time.
RECOVERY = 1 / 512


def accept(token: int, p: Array, q: Array, rng: np.random.Generator) -> int:
    """Accepts a token that was drawn from q, or draws another one, so that the result is distributed as p.

    The token x is accepted with the probability min(1, p_x / q_x). Otherwise another one is drawn with probabilities
    proportional to max(0, p - q): what accepted tokens leave of p. For each x, the two add up to

        min(p_x, q_x) + max(0, p_x - q_x) = p_x

    That needs the q that the token was really drawn from.

    Shapes: p and q `[n_vocab]`, each with the sum 1.
    Source: Leviathan 2.3 and A.1; Chen, theorem 1.
    """
    if rng.random() * q[token] < p[token]:
        return token
    rest = np.maximum(p - q, 0)
    with np.errstate(divide="ignore"):
        return sampling.draw(np.log(rest if rest.any() else p), rng)  # all 0 only by rounding


SAME_VOCABULARY = "the assistant must have the same vocabulary as the model"


class AssistantModel(Protocol):
    """What is needed of a model, `GPT2`, to assist another one."""

    hparams: HParams
    params: Params
    tokenizer: Tokenizer | None


def check_assistant(assistant: AssistantModel, hparams: HParams, tokenizer: Tokenizer | None) -> None:
    """Checks that a model can draft for one with these hyperparameters and this tokenizer.

    Raises:
        ValueError: the same id is not the same token for both.
    """
    ours, theirs = hparams.n_vocab, assistant.hparams.n_vocab
    if ours != theirs:
        raise ValueError(f"{SAME_VOCABULARY}, but it knows {theirs} token ids, and the model {ours}")
    if tokenizer and assistant.tokenizer and tokenizer.encoder != assistant.tokenizer.encoder:
        raise ValueError(f"{SAME_VOCABULARY}, but some ids stand for other tokens")


def cost(assistant: HParams, hparams: HParams) -> float:
    """What a pass of the assistant costs, in passes of the model: its share of the weights, which a pass reads."""
    return count_params(assistant) / count_params(hparams)


def drafts(assistant: HParams, hparams: HParams) -> bool:
    """Whether an assistant of this shape is small enough to be tried."""
    return speculation.best_length([FIRST_CHANCE] * speculation.MOST, cost(assistant, hparams)) > 0


class Assistant:
    """Drafts the tokens of one text with a smaller model, and chooses among them for the model.

    Where the text is longer than the assistant's context, nothing is drafted.

    Args:
        assistant: the smaller model, checked by `check_assistant`.
        hparams: those of the model.
        rng, options: how the tokens of the text are drawn, as for `sampling.next_token`.
    """

    def __init__(
        self, assistant: AssistantModel, hparams: HParams, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> None:
        self._params, self._n_head = assistant.params, assistant.hparams.n_head
        self._cost = cost(assistant.hparams, hparams)
        self._rng, self._options = rng, options
        self._read: list[int] = []  # the tokens that the past holds
        self._chance = FIRST_CHANCE
        self._start = 0  # where the last draft begins in the text
        self._draft: list[int] = []
        self._drawn_from: dict[int, Array] = {}  # the probabilities each token was drawn with, by its place in the text

    @cached_property
    def _past(self) -> Past:
        return Past(self._params, self._n_head)

    def draft(self, row: Row, n_most: int) -> list[int]:
        """The tokens that the assistant goes on with, at most n_most, and none if that is likely to be faster."""
        self._learn(row.tokens)
        context, n_ctx = row.context, len(self._params.wpe)
        n_most = min(n_most, n_ctx - len(context) + 1)
        self._start, self._draft, self._drawn_from = len(row.tokens), [], {}
        for _ in range(speculation.best_length([self._chance] * n_most, self._cost)):
            logits = self._logits(context + self._draft)
            self._draft.append(self._draw(logits, row.tokens + self._draft))
        return self._draft

    def choose(self, logits: Array, ids: Sequence[int]) -> int:
        """For `Row`: the next token of the text, given the model's logits."""
        q = self._drawn_from.get(len(ids))
        if q is None:
            return sampling.next_token(logits, self._rng, ids, **self._options)
        p = to_host(layers.softmax(sampling.final_logits(logits, ids, **self._options)))
        return accept(self._draft[len(ids) - self._start], p, q, self._rng)

    def _learn(self, tokens: Sequence[int]) -> None:
        """Counts the tokens of the last draft: the right ones, and the first wrong one."""
        if not self._draft:
            self._chance += RECOVERY * (FIRST_CHANCE - self._chance)
        for drafted, token in zip(self._draft, tokens[self._start :], strict=False):
            self._chance += LATELY * ((drafted == token) - self._chance)
            if drafted != token:
                break

    def _logits(self, context: list[int]) -> Array:
        """The assistant's logits after a text, of which it reads what its past does not hold: `[n_vocab]`."""
        n_same = count_same(self._read, context[:-1])
        self._past.lengths[:] = n_same
        self._read = context[:n_same]
        x = prefill.read(np.array([context[n_same:]]), self._params, self._n_head, self._past)[:, -1]
        self._read = context
        return model.output_head(x, self._params)[0]

    def _draw(self, logits: Array, ids: list[int]) -> int:
        """Draws a token to draft, and remembers what from."""
        if self._options.get("temperature") == 0:
            return sampling.next_token(logits, self._rng, ids, **self._options)
        adjusted = sampling.final_logits(logits, ids, **self._options)
        self._drawn_from[len(ids)] = to_host(layers.softmax(adjusted))
        return sampling.draw(adjusted, self._rng)


def count_same(a: Sequence[int], b: Sequence[int]) -> int:
    """With how many equal tokens two texts begin.

    >>> count_same([1, 2, 3], [1, 2, 4, 5])
    2
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
