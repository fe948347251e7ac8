"""The autoregressive loop: predict a token, append it, repeat. Several texts grow together, in one batch.

After each step, the past holds all tokens of a text's context but the newest, which the next step reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from .layers import log_softmax
from .model import Past, output_head, read, transformer
from .params import Array, Params
from .text import Text
from .tokenizer import pad_right

FinishReason: TypeAlias = Literal["end_of_text", "length", "stop", "context"]


class Generation(NamedTuple):
    """A continuation, with what is known of it."""

    text: str  # the continuation, after the prompt if that was asked for; "" without a vocabulary
    ids: list[int]  # the tokens of the continuation; a stop string may have cut off a part of the last one's text
    log_probabilities: list[float]  # of these tokens, natural, before temperature and the like; none if not wanted
    finish_reason: FinishReason  # why it ended, as `Row` says


class Row:
    """One text of the batch while it grows, in token ids.

    Args:
        prompt: what it begins with, at least one token.
        choose: makes the next token from its logits, `[n_vocab]`, and, as `ids`, all tokens before it.
        max_new_tokens: how many tokens to add at most.
        end_of_text: the token that ends a text; it is not part of the continuation.
        text: gets the tokens, to make characters of them and to look for stop strings.
        with_log_probabilities: whether to keep those of the tokens, which takes a moment each time.

    Attributes:
        tokens: the prompt and the continuation.
        n_prompt: how many of them are the prompt.
        max_new_tokens, text: as given.
        log_probabilities: the natural logarithms of the probabilities that the model gave to the
            continuation's tokens; none if they are not wanted.
        finish_reason: why it ended: at `end_of_text`, at the `length` asked for, at a `stop` string, or
            because the `context` is full; None until it has.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        choose: Callable[..., int],
        max_new_tokens: int,
        end_of_text: int | None = None,
        text: Text | None = None,
        with_log_probabilities: bool = True,
    ) -> None:
        self.tokens = list(prompt)
        self.n_prompt = len(prompt)
        self.max_new_tokens = max_new_tokens
        self.text = text
        self.log_probabilities: list[float] = []
        self.finish_reason: FinishReason | None = None if max_new_tokens else "length"
        self._start = 0  # of the context
        self._choose = choose
        self._end_of_text = end_of_text
        self._with_log_probabilities = with_log_probabilities

    @property
    def ids(self) -> list[int]:
        """The continuation."""
        return self.tokens[self.n_prompt :]

    @property
    def context(self) -> list[int]:
        """What the model sees of the text."""
        return self.tokens[self._start :]

    def grow(self, logits: Array) -> None:
        """Adds the token that is chosen from the logits, `[n_vocab]`, or ends."""
        token = self._choose(logits, ids=self.tokens)
        if token == self._end_of_text:
            self.finish_reason = "end_of_text"
            return
        self.tokens.append(token)
        if self._with_log_probabilities:
            self.log_probabilities.append(float(log_softmax(logits)[token]))
        if self.text and self.text.add(token):
            self.finish_reason = "stop"
            del self.tokens[self.n_prompt + self.text.n_tokens :], self.log_probabilities[self.text.n_tokens :]
        elif len(self.tokens) - self.n_prompt == self.max_new_tokens:
            self.finish_reason = "length"

    def slide_or_end(self, n_ctx: int, slide: bool) -> bool:
        """Where the context is full, keeps only its newest half, or else ends the text. True after the first."""
        if self.finish_reason or len(self.tokens) - self._start < n_ctx:
            return False
        if slide:
            self._start = len(self.tokens) - (n_ctx - n_ctx // 2)
        else:
            self.finish_reason = "context"
        return slide

    def generation(self) -> Generation:
        """What came of it, once it has ended."""
        assert self.finish_reason
        if self.text:
            self.text.finish()
        text = self.text.so_far if self.text else ""
        return Generation(text, self.ids, self.log_probabilities, self.finish_reason)


def generate(rows: Sequence[Row], params: Params, n_head: int, slide: bool = False) -> Iterator[int]:
    """Continues texts by one token each at every step, until all have ended.

    The prompts are read once, equal ones once for all; then each new token alone: the past has the
    rest. A row that has ended takes no more part.

    Args:
        rows: the texts, which grow.
        params, n_head: the model.
        slide: what to do with a text that fills the context: keep only the newest half of a context, read
            it again as if the text began there, and go on; or else end the text.

    Returns:
        An iterator that makes a step each time, and gives the number of texts that took part.
    """
    n_ctx = len(params.wpe)
    for row in rows:
        row.slide_or_end(n_ctx, slide)
    rows = [row for row in rows if not row.finish_reason]
    if not rows:
        return
    room = min(n_ctx, max(row.n_prompt + row.max_new_tokens for row in rows))
    past, x = read_prompts([row.context for row in rows], params, n_head, room)
    while True:
        for row, logits in zip(rows, output_head(x, params), strict=True):
            row.grow(logits)
        yield len(rows)
        for i, row in enumerate(rows):
            if row.slide_or_end(n_ctx, slide):
                reread(past.row(i), row.context[:-1], params, n_head)
        going = [i for i, row in enumerate(rows) if not row.finish_reason]
        if not going:
            return
        if len(going) < len(rows):
            rows, past = [rows[i] for i in going], past.select(going)
        newest = np.array([row.tokens[-1:] for row in rows])  # [n_batch, 1]
        x = transformer(newest, params, n_head, past)[:, -1]  # [n_batch, n_embd]


def read_prompts(prompts: Sequence[Sequence[int]], params: Params, n_head: int, room: int) -> tuple[Past, Array]:
    """Reads prompts of any lengths as one batch, padded on the right. Equal ones are read once, and then copied.

    Positions count from the beginning of a text, so padding on the left would move it. On the right it
    does no harm: no token sees what follows it, and each text goes on at its own length.

    Returns:
        The past, with room for so many tokens of each text; and for each text the vector that its next
        token is scored with, `[n_batch, n_embd]`.
    """
    number: dict[tuple[int, ...], int] = {}  # of each different prompt
    which = [number.setdefault(tuple(prompt), len(number)) for prompt in prompts]
    ids, lengths, _ = pad_right([*number], pad=0)  # [number of different prompts, n_seq]
    past = Past(params, n_head, len(ids), room)
    x = read(ids, params, n_head, past)
    past.lengths[:] = lengths
    last = x[np.arange(len(ids), like=x), np.asarray(lengths - 1, like=x)]
    return (past, last) if len(number) == len(prompts) else (past.select(which), last[which])


def reread(past: Past, ids: list[int], params: Params, n_head: int) -> None:
    """Makes a past of one text hold these ids instead."""
    past.lengths[:] = 0
    if ids:
        read(np.array([ids]), params, n_head, past)


class TextStream(Iterator[str]):
    """The text of one row, piece by piece, as soon as each is certain.

    A piece is whole characters, never a part of one: where a character takes several tokens, it comes
    with the last of them. What may be the beginning of a stop string waits until it is known.

    Attributes:
        finish_reason: why the text ended, as `Row` says; None until it has, and so for ever if it was interrupted.
    """

    def __init__(self, row: Row, steps: Iterator[int]) -> None:
        assert row.text
        self._row = row
        self._pieces = self._as_they_come(row.text, steps)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended."""
        return self._row.finish_reason

    def __next__(self) -> str:
        return next(self._pieces)

    @staticmethod
    def _as_they_come(text: Text, steps: Iterator[int]) -> Iterator[str]:
        while True:
            if piece := text.take():
                yield piece
            if next(steps, None) is None:
                break
        text.finish()
        if rest := text.take():
            yield rest
