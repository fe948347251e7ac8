"""From tokens to text, one token at a time: whole characters only, and a clean end at a stop string."""

from __future__ import annotations

import bisect
import codecs
from collections.abc import Sequence

from ..tokenizer import Tokenizer


class Detokenizer:
    """The text of tokens as they arrive: in whole characters, and up to a stop string.

    A token may end in the middle of a character, and a stop string may begin in the middle of a token. So
    everything is done in bytes, and only what is certain becomes characters.

    Args:
        tokenizer: knows the bytes of each token.
        stop: strings that end the text, none of them empty.
        before: what the text begins with, in bytes; no stop string is searched for in it.
        n_given: how many bytes of the first tokens are not part of the text, since they were there before.

    Attributes:
        text: the characters that are certain.
        n_tokens: how many of the tokens have a part in the text; those of a stop string have none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), before: bytes = b"", n_given: int = 0) -> None:
        self._tokenizer = tokenizer
        self._stop = [string.encode() for string in stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._data = b""
        self._n_decoded = n_given  # bytes
        self._starts: list[int] = []  # where each token begins in the data
        self._n_taken = 0  # characters
        self.text = self._decoder.decode(before)
        self.n_tokens = 0

    def add(self, token: int) -> bool:
        """Adds a token. Returns whether this completes a stop string; then the text ends before that string."""
        self._starts.append(len(self._data))
        self._data += self._tokenizer.decode_bytes([token])
        # No stop string begins in the bytes that are decoded: they would have been held back.
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
        """Ends the text: what was held back becomes part of it, and half a character becomes "�"."""
        self._decode(len(self._data), final=True)

    @property
    def n_certain(self) -> int:
        """How many of the tokens have a part in what is certain, so that no stop string can cut them off."""
        return bisect.bisect_left(self._starts, self._n_decoded)

    def take(self) -> str:
        """What has become certain since the last call."""
        piece = self.text[self._n_taken :]
        self._n_taken = len(self.text)
        return piece

    def _n_held_back(self) -> int:
        """How many bytes at the end may turn out to be the beginning of a stop string."""
        undecoded = self._data[self._n_decoded :]
        beginnings = (stop[:n] for stop in self._stop for n in range(1, min(len(stop), len(undecoded) + 1)))
        return max((len(beginning) for beginning in beginnings if undecoded.endswith(beginning)), default=0)

    def _decode(self, end: int, final: bool) -> None:
        self.text += self._decoder.decode(self._data[self._n_decoded : end], final)
        self._n_decoded = max(end, self._n_decoded)
