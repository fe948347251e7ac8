"""From tokens to text while they come, one by one: whole characters, and a clean end at a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from .tokenizer import Tokenizer


class Text:
    """The text of tokens as they come: in whole characters, and without a stop string and what follows it.

    A token may end in the middle of a character, and a stop string begin in the middle of a token: so
    all is done in bytes, and only what is certain becomes characters.

    Args:
        tokenizer: knows the bytes of each token.
        stop: strings that end the text, none of them empty.
        before: what the text begins with, in bytes; no stop string is looked for in it.

    Attributes:
        so_far: the characters that are certain.
        n_tokens: how many of the tokens have a part in the text; those of a stop string have none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), before: bytes = b"") -> None:
        self._tokenizer = tokenizer
        self._stop = [string.encode() for string in stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._data = b""
        self._n_decoded = 0  # bytes
        self._starts: list[int] = []  # where each token begins in the data
        self._n_taken = 0  # characters
        self.so_far = self._decoder.decode(before)
        self.n_tokens = 0

    def add(self, token: int) -> bool:
        """Adds a token. True if a stop string is complete now: then the text has ended before it."""
        self._starts.append(len(self._data))
        self._data += self._tokenizer.decode_bytes([token])
        # No stop string begins in what has been decoded: it would have been held back.
        found = [at for stop in self._stop if (at := self._data.find(stop, self._n_decoded)) >= 0]
        if not found:
            self.n_tokens += 1
            self._decode(len(self._data) - self._n_held_back(), final=False)
            return False
        self._data = self._data[: min(found)]
        self.n_tokens = sum(start < len(self._data) for start in self._starts)
        self.finish()
        return True

    def finish(self) -> None:
        """Ends the text: what was held back belongs to it, and half a character becomes "�"."""
        self._decode(len(self._data), final=True)

    def take(self) -> str:
        """What has become certain since it was taken last."""
        piece = self.so_far[self._n_taken :]
        self._n_taken = len(self.so_far)
        return piece

    def _n_held_back(self) -> int:
        """How many bytes at the end may turn out to be the beginning of a stop string."""
        undecoded = self._data[self._n_decoded :]
        beginnings = (stop[:n] for stop in self._stop for n in range(1, min(len(stop), len(undecoded) + 1)))
        return max((len(beginning) for beginning in beginnings if undecoded.endswith(beginning)), default=0)

    def _decode(self, end: int, final: bool) -> None:
        self.so_far += self._decoder.decode(self._data[self._n_decoded : end], final)
        self._n_decoded = end
