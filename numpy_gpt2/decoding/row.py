"""One text of the batch while it grows, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from .. import checks, layers
from ..params import Array
from .detokenizer import Detokenizer

# The model ended the text; as many tokens as asked for were generated; a stop string came; or the context is full.
FinishReason: TypeAlias = Literal["end_of_text", "length", "stop", "context"]


class Generation(NamedTuple):
    """A continuation, with what is known about it."""

    text: str  # the continuation, after the prompt if that was asked for; "" without a vocabulary
    ids: list[int]  # the tokens of the continuation; a stop string may cut off part of the text of the last one
    log_probabilities: list[float]  # of these tokens, before any sampling option; empty if not asked for
    finish_reason: FinishReason


class Drafter(Protocol):
    """Guesses how a text goes on, for `speculation`."""

    def draft(self, row: Row, n_most: int) -> list[int]:
        """Up to n_most tokens that may follow."""


class Row:
    """One text of the batch, in token ids.

    Args:
        prompt: what the text begins with, at least one token.
        choose: returns the next token, given its logits, `[n_vocab]`, and, as `ids`, all tokens before it.
        max_new_tokens: the most tokens to add.
        eos_token_ids: the tokens that end a text; such a token does not become part of the continuation.
        detokenizer: turns the tokens into characters, and looks for stop strings.
        with_log_probabilities: whether to keep the log-probability of each token, which takes a moment.
        drafter: guesses how the text goes on.
        with_prompt: whether the prompt is part of the result, if that is ids.

    Attributes:
        tokens: the prompt and the continuation.
        n_prompt: how many of the tokens are the prompt.
        max_new_tokens, detokenizer, drafter: as given.
        log_probabilities: the natural logarithms of the probabilities that the model gave to the tokens of the
            continuation; empty if not asked for.
        finish_reason: why the text ended; None while it grows.
        n_drafted, n_accepted: how many tokens were drafted, and how many of them became part of the text.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        choose: Callable[..., int],
        max_new_tokens: int,
        eos_token_ids: Collection[int] = (),
        detokenizer: Detokenizer | None = None,
        with_log_probabilities: bool = True,
        drafter: Drafter | None = None,
        with_prompt: bool = False,
    ) -> None:
        self.tokens = list(prompt)
        self.n_prompt = len(prompt)
        self.max_new_tokens = max_new_tokens
        self.detokenizer = detokenizer
        self.drafter = drafter
        self.n_drafted = self.n_accepted = 0
        self.log_probabilities: list[float] = []
        self.finish_reason: FinishReason | None = None if max_new_tokens else "length"
        self._context_start = 0
        self._result_start = 0 if with_prompt else len(prompt)
        self._choose = choose
        self._eos_token_ids = eos_token_ids
        self._with_log_probabilities = with_log_probabilities

    @property
    def ids(self) -> list[int]:
        """The continuation."""
        return self.tokens[self.n_prompt :]

    @property
    def result_ids(self) -> list[int]:
        """What somebody gets who gets ids in place of text."""
        return self.tokens[self._result_start :]

    @property
    def context(self) -> list[int]:
        """The tokens that the model sees."""
        return self.tokens[self._context_start :]

    def grow(self, logits: Array) -> None:
        """Adds the token that is chosen from the logits, `[n_vocab]`, or ends the text."""
        token = self._choose(checks.check_finite(logits), ids=self.tokens)
        if token in self._eos_token_ids:
            self.finish_reason = "end_of_text"
            return
        self.tokens.append(token)
        if self._with_log_probabilities:
            self.log_probabilities.append(float(layers.log_softmax(logits)[token]))
        if self.detokenizer and self.detokenizer.add(token):
            self.finish_reason = "stop"
            n_tokens = self.detokenizer.n_tokens
            del self.tokens[self.n_prompt + n_tokens :], self.log_probabilities[n_tokens:]
        elif len(self.tokens) - self.n_prompt == self.max_new_tokens:
            self.finish_reason = "length"

    def slide_or_end(self, n_ctx: int, slide: bool) -> bool:
        """If the newest token has no place in the context, keeps only the newest half of it, or else ends the text.

        Returns:
            Whether it slid.
        """
        if self.finish_reason or len(self.tokens) - self._context_start <= n_ctx:
            return False
        if slide:
            self._context_start = len(self.tokens) - (n_ctx - n_ctx // 2)  # at least one token stays
        else:
            self.finish_reason = "context"
        return slide

    def release(self) -> None:
        """Lets go of what an ended text does not need, which may hold memory."""
        self.drafter = None
        del self._choose

    def result(self) -> str | list[int]:
        """The text, once it has ended, or the ids without a detokenizer."""
        return self.generation().text if self.detokenizer else self.result_ids

    def generation(self) -> Generation:
        """The result, once the text has ended."""
        assert self.finish_reason
        text = ""
        if self.detokenizer:
            self.detokenizer.finish()
            text = self.detokenizer.text
        return Generation(text, self.ids, self.log_probabilities, self.finish_reason)
