"""A text that ends inside a word: its last tokens are taken back, and chosen anew with what completes the word.

The model has learned " time" as one token, and has rarely seen " ti" before "me". So a text that ends in " ti" goes on
better from the tokens before, if only those are drawn that begin with " ti". Likewise the space at the end of a text:
it belongs to the token of the next word.

Tokens are compared as the vocabulary writes them, one character for each byte.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from ..params import Array
from ..tokenizer import Tokenizer, split

LONGEST = 200  # characters of a word that is looked at


class HalfWord:
    """The end of a text that was taken back, and is to be written again.

    Args:
        tokenizer: knows the tokens.
        tokens: those that were taken back.

    Attributes:
        n_tokens: how many they are.
        n_bytes: their length in bytes.
        text: their text, without the rest of a character that begins in a token before them.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> None:
        self.n_tokens = len(tokens)
        self._spelling = "".join(tokenizer.decoder[id] for id in tokens)
        self.n_bytes = len(self._spelling)
        self.text = tokenizer.decode_bytes(tokens).decode(errors="ignore")
        self._decoder = tokenizer.decoder
        self._special = special_ids(tokenizer)
        self._admitted = functools.cache(self._find_admitted)  # the same for all rows of a batch

    def admit(self, logits: Array, made: Sequence[int]) -> Array:
        """The logits, but minus infinity for the tokens that would write something else.

        A token may write the rest of what was taken back and go on, or write a part of it.

        Args:
            logits: `[n_vocab]`.
            made: the tokens that came already in place of those that were taken back.
        """
        n_written = sum(len(self._decoder[id]) for id in made[: self.n_bytes])  # each writes at least one byte
        if n_written >= self.n_bytes:
            return logits
        index = np.asarray(self._admitted(self._spelling[n_written:]), like=logits)
        admitted = np.full_like(logits, -math.inf)
        admitted[index] = logits[index]
        return admitted

    def completing(self, choose: Callable[..., int], n_prompt: int) -> Callable[..., int]:
        """The function `choose` of a `Row` whose prompt has n_prompt tokens, with the logits that `admit` returns."""

        def complete(logits: Array, ids: Sequence[int]) -> int:
            return choose(self.admit(logits, ids[n_prompt:]), ids=ids)

        return complete

    def _find_admitted(self, rest: str) -> list[int]:
        """The tokens that begin with the rest, or with which the rest begins."""
        return [
            id
            for id, token in enumerate(self._decoder)
            if (token.startswith(rest) or (token and rest.startswith(token))) and id not in self._special
        ]


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """The ids of the special tokens, which stand for no text."""
    return {tokenizer.encoder[token] for token in tokenizer.special}


def take_back(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> HalfWord | None:
    """The last tokens of a text with which a longer token begins: as many as possible, all in the last word.

    Args:
        text: the text.
        ids: its tokens.
        tokenizer: knows the tokens.

    Returns:
        None if no longer token begins with the last ones.

    >>> half = take_back("Once upon a ti", [7454, 2402, 257, 46668], Tokenizer.gpt2())
    >>> (half.n_tokens, half.n_bytes)
    (1, 3)
    """
    words = split(text[-LONGEST:])
    word = tokenizer.encode_word(words[-1]) if words else []
    if [*ids[len(ids) - len(word) :]] != word:
        return None  # the word is longer, or the text ends in a token that was added to the vocabulary
    special = special_ids(tokenizer)
    tokens = [token for id, token in enumerate(tokenizer.decoder) if id not in special]
    for i in range(len(word)):
        spelling = "".join(tokenizer.decoder[id] for id in word[i:])
        if any(len(token) > len(spelling) and token.startswith(spelling) for token in tokens):
            return HalfWord(tokenizer, word[i:])
    return None
