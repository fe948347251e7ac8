"""The autoregressive loop: predict a token, append it, repeat."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np

from .model import Past, output_head, transformer
from .params import Array, Params
from .tokenizer import Tokenizer

FinishReason: TypeAlias = Literal["end_of_text", "length", "context"]


def generate(
    ids: Sequence[int],
    params: Params,
    n_head: int,
    choose: Callable[[Array], int],
    max_new_tokens: int,
    end_of_text: int | None = None,
) -> Generator[int, None, FinishReason]:
    """Continues a prompt, one token at a time.

    The prompt is read once, then each new token alone: the past has the rest.

    Args:
        ids: the prompt, at least one token and at most as many as the context holds.
        choose: makes the next token from its logits, `[n_vocab]`.
        max_new_tokens: how many tokens to add at most.
        end_of_text: the token that ends a text; it is not part of the continuation.

    Returns:
        A generator of token ids. Its return value says why it ended: at `end_of_text`, at the
        `length` asked for, or because the `context` is full.
    """
    past = Past(params, n_head)
    n_ctx = len(params.wpe)
    for _ in range(max_new_tokens):
        if past.length + len(ids) >= n_ctx:
            return "context"
        x = transformer(np.array([ids]), params, n_head, past)  # [1, n_seq, n_embd]
        token = choose(output_head(x[0, -1], params))  # only what follows the last token is wanted
        if token == end_of_text:
            return "end_of_text"
        yield token
        ids = [token]
    return "length"


class TextStream(Iterator[str]):
    """The text of generated tokens, piece by piece, as soon as each is made.

    A piece is whole characters, never a part of one: where a character takes several tokens, it comes
    with the last of them.

    Attributes:
        finish_reason: why the text ended, as `generate` says; None until it has.
    """

    def __init__(self, tokens: Generator[int, None, FinishReason], tokenizer: Tokenizer) -> None:
        self.finish_reason: FinishReason | None = None
        self._pieces = self._decode(tokens, tokenizer)

    def __next__(self) -> str:
        return next(self._pieces)

    def _decode(self, tokens: Generator[int, None, FinishReason], tokenizer: Tokenizer) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in self._until_finished(tokens):
            if piece := decoder.decode(tokenizer.decode_bytes([token])):
                yield piece
        if rest := decoder.decode(b"", final=True):
            yield rest

    def _until_finished(self, tokens: Generator[int, None, FinishReason]) -> Iterator[int]:
        self.finish_reason = yield from tokens
