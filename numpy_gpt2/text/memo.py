"""Remembers the ids of words: most words of a text occur in it many times."""

from __future__ import annotations

from collections.abc import Callable

# Bounds, so that a hostile text cannot fill the memory.
MAX_CHARACTERS = 2**20  # of all words together
MAX_WORD = 2**14  # of one word


class Memo(dict[str, list[int]]):
    """The ids of each word, computed when first asked for.

    Args:
        encode_word: computes the ids of a word.
        max_characters: how long the remembered words may be together; beyond that, the memo starts over.
        max_word: how long a word may be to be remembered.
    """

    def __init__(
        self,
        encode_word: Callable[[str], list[int]],
        max_characters: int = MAX_CHARACTERS,
        max_word: int = MAX_WORD,
    ) -> None:
        self._encode_word = encode_word
        self._max_characters = max_characters
        self._max_word = max_word
        self._n_characters = 0

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode_word(word)
        if len(word) <= self._max_word:
            self._n_characters += len(word)
            if self._n_characters > self._max_characters:
                self.clear()
                self._n_characters = len(word)
            self[word] = ids
        return ids
