"""The autoregressive loop: predict a token, append it, repeat. Several texts grow together, in one batch.

Row           one text of the batch while it grows, in token ids
generate      the loop: each step gives each row one token
Text          the characters of a row's tokens, up to a stop string
TextStream    one text, piece by piece, as it is made
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from .layers import log_softmax
from .model import Past, check_fits, check_ids, output_head, transformer
from .params import Array, HParams, Params
from .sampling import check_sampling, check_whole_number, next_token
from .text import Text
from .tokenizer import Tokenizer, byte_spelling, pad_right

Prompt: TypeAlias = str | Sequence[int] | Array  # text, or token ids [n_seq]
PIECE = 128  # tokens of a prompt that are read at once
FinishReason: TypeAlias = Literal["end_of_text", "length", "stop", "context"]


class Generation(NamedTuple):
    """A continuation, with what is known of it."""

    text: str  # the continuation, after the prompt if that was asked for; "" without a vocabulary
    ids: list[int]  # the tokens of the continuation; of the last one, a stop string may have cut the text
    log_probabilities: list[float]  # of these tokens, natural: the model's own, before temperature and the like
    finish_reason: FinishReason  # why it ended, as `Row` says


class Options(NamedTuple):
    """How texts are to be continued; `GPT2.generate` says what each option means."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    temperature: float = 1.0
    top_k: int = 40
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: str | Sequence[str] | None = None
    seed: int | np.random.SeedSequence | None = None
    slide: bool = False
    return_full_text: bool = False

    def stop_strings(self) -> list[str]:
        """The stop strings, of which there may be one, several or none."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def sampling(self) -> dict[str, Any]:
        """Those that `next_token` takes."""
        return {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty")}


class Row:
    """One text of the batch while it grows, in token ids.

    Args:
        prompt: what it begins with, at least one token.
        choose: makes the next token from its logits, `[n_vocab]`, and, as `ids`, all tokens before it.
        max_new_tokens: how many tokens to add at most.
        end_of_text: the token that ends a text; it is not part of the continuation.
        text: gets the tokens, to make characters of them and to look for stop strings.

    Attributes:
        tokens: the prompt and the continuation.
        n_prompt: how many of them are the prompt.
        max_new_tokens, text: as given.
        log_probabilities: the natural logarithms of the probabilities that the model gave to the
            continuation's tokens.
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
    ) -> None:
        self.tokens = list(prompt)
        self.n_prompt = len(prompt)
        self.max_new_tokens = max_new_tokens
        self.text = text
        self.log_probabilities: list[float] = []
        self.finish_reason: FinishReason | None = None if max_new_tokens else "length"
        self._choose = choose
        self._end_of_text = end_of_text

    @property
    def ids(self) -> list[int]:
        """The continuation."""
        return self.tokens[self.n_prompt :]

    def grow(self, logits: Array) -> None:
        """Adds the token that is chosen from the logits, `[n_vocab]`, or ends."""
        token = self._choose(logits, ids=self.tokens)
        if token == self._end_of_text:
            self.finish_reason = "end_of_text"
            return
        self.tokens.append(token)
        self.log_probabilities.append(float(log_softmax(logits)[token]))
        if self.text and self.text.add(token):
            self.finish_reason = "stop"
            del self.tokens[self.n_prompt + self.text.n_tokens :], self.log_probabilities[self.text.n_tokens :]
        elif len(self.log_probabilities) == self.max_new_tokens:
            self.finish_reason = "length"

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
        slide: what to do with a text that fills the context: drop the oldest half, read the rest again
            as if the text began there, and go on; or else end the text.

    Returns:
        An iterator that makes a step each time, and gives the number of texts that took part.
    """
    n_ctx = len(params.wpe)
    newest_half = slice(n_ctx // 2 - n_ctx, None)  # of the tokens of a full context
    for row in rows:
        if len(row.tokens) >= n_ctx and not slide:
            row.finish_reason = row.finish_reason or "context"
    rows = [row for row in rows if not row.finish_reason]
    if not rows:
        return
    prompts = [row.tokens if len(row.tokens) < n_ctx else row.tokens[newest_half] for row in rows]
    room = min(n_ctx, max(row.n_prompt + row.max_new_tokens for row in rows))
    past, x = read_prompts(prompts, params, n_head, room)
    while True:
        for row, logits in zip(rows, output_head(x, params), strict=True):
            row.grow(logits)
        yield len(rows)
        # Now the past holds all tokens of a context but the newest. With this, is the context full?
        for i, row in enumerate(rows):
            if not row.finish_reason and past.lengths[i] + 1 >= n_ctx:
                if slide:
                    reread(past.row(i), row.tokens[newest_half][:-1], params, n_head)
                else:
                    row.finish_reason = "context"
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
    last = x[np.arange(len(ids)), lengths - 1]
    return (past, last) if len(number) == len(prompts) else (past.select(which), last[which])


def reread(past: Past, ids: list[int], params: Params, n_head: int) -> None:
    """Makes a past of one text hold these ids instead."""
    past.lengths[:] = 0
    if ids:
        read(np.array([ids]), params, n_head, past)


def read(ids: Array, params: Params, n_head: int, past: Past) -> Array:
    """Like `transformer`, but a few tokens after the other.

    Attention has a number for each token that is read and each before it, in each head and text. All of
    a long prompt at once, that would take much memory, and half of the work would be for the mask.
    """
    pieces = np.split(ids, range(PIECE, ids.shape[1], PIECE), axis=1)
    return np.concatenate([transformer(piece, params, n_head, past) for piece in pieces], axis=1)


def check_options(options: Options) -> None:
    """Checks the options of generation.

    Raises:
        ValueError: one of them is out of its range, or two exclude each other.
    """
    check_sampling(**options.sampling())
    if options.max_new_tokens is not None and options.max_length is not None:
        raise ValueError("give max_new_tokens or max_length, which counts the prompt as well, but not both")
    for name in ("max_new_tokens", "max_length"):
        if getattr(options, name) is not None:
            check_whole_number(name, getattr(options, name))
    if options.seed is not None and not isinstance(options.seed, np.random.SeedSequence):
        check_whole_number("seed", options.seed)
    if not isinstance(options.stop, (str, Iterable, type(None))):
        raise ValueError(f"stop must be text, or a list of texts, not {options.stop!r}")
    for string in options.stop_strings():
        if not isinstance(string, str) or not string:
            raise ValueError(f"a stop string must be text, and at least one character, not {string!r}")
        byte_spelling(string)  # raises an error if UTF-8 cannot carry it


def start_rows(
    prompts: Sequence[Prompt], n_each: int, options: Options, hparams: HParams, tokenizer: Tokenizer | None
) -> list[Row]:
    """The rows of a batch: n_each for each prompt, which draw their tokens from random streams of their own.

    Row i gets the stream number i of the seed, whatever the other rows are.

    Raises:
        ValueError: a prompt cannot be read, or is too long.
    """
    sequence = (
        options.seed if isinstance(options.seed, np.random.SeedSequence) else np.random.SeedSequence(options.seed)
    )
    streams = iter(sequence.spawn(len(prompts) * n_each))
    rows = []
    for number, prompt in enumerate(prompts, start=1):
        try:
            ids = encode_prompt(prompt, hparams, tokenizer, options.slide)
            max_new_tokens = count_new_tokens(options, len(ids))
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}" if len(prompts) > 1 else str(error)) from None
        shown = tokenizer.decode_bytes(ids) if tokenizer and options.return_full_text and len(prompt) else b""
        for _ in range(n_each):
            choose = partial(next_token, rng=np.random.default_rng(next(streams)), **options.sampling())
            text = Text(tokenizer, options.stop_strings(), shown) if tokenizer else None
            end_of_text = tokenizer.end_of_text if tokenizer else None
            rows.append(Row(ids, choose, max_new_tokens, end_of_text, text))
    return rows


def encode_prompt(prompt: Prompt, hparams: HParams, tokenizer: Tokenizer | None, slide: bool) -> list[int]:
    """The ids of a prompt; if it is empty, `<|endoftext|>`, after which the model begins a text of its own.

    Raises:
        ValueError: it is text, and there is no vocabulary; or not ids of this model, or, unless the
            context slides, too many.
    """
    if isinstance(prompt, str):
        prompt = require(tokenizer).encode(prompt)
    batch = check_ids([tokenizer.end_of_text] if tokenizer and np.size(prompt) == 0 else prompt, hparams)
    if len(batch) > 1:
        raise ValueError("a prompt is one row of token ids, and this is several")
    if not slide:
        try:
            check_fits(batch, hparams)
        except ValueError as error:
            raise ValueError(f"{error}; slide (--slide) would read only its last part") from None
    return batch[0].tolist()


def count_new_tokens(options: Options, n_prompt: int) -> int:
    """How many tokens may follow a prompt of n_prompt tokens.

    Raises:
        ValueError: the prompt alone is longer than `max_length`.
    """
    if options.max_length is None:
        return 64 if options.max_new_tokens is None else options.max_new_tokens
    if n_prompt > options.max_length:
        raise ValueError(f"the prompt has {n_prompt} tokens, more than max_length, {options.max_length}")
    return options.max_length - n_prompt


def as_prompts(prompt: Any) -> tuple[list[Any], bool]:
    """The prompts in what may be one (text, or a row of ids) or several; and whether it is several."""
    if isinstance(prompt, (str, bytes)) or not np.iterable(prompt):
        return [prompt], False
    items = list(prompt)
    return (items, True) if items and np.iterable(items[0]) else ([items], False)


def require(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer, where text is wanted.

    Raises:
        ValueError: the model has none.
    """
    if tokenizer is None:
        raise ValueError(
            "this model came without a vocabulary (tokenizer.json, or vocab.json and merges.txt) and knows only ids"
        )
    return tokenizer


class TextStream(Iterator[str]):
    """The text of one row, piece by piece, as soon as each is certain.

    A piece is whole characters, never a part of one: where a character takes several tokens, it comes
    with the last of them. What may be the beginning of a stop string waits until it is known.

    Attributes:
        finish_reason: why the text ended, as `Row` says; None until it has.
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
