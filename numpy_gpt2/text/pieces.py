"""A long text in pieces, so that only the words of one piece are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import regex

SIZE = 2**14  # characters

# White space continues no word but one of white space. So a word begins here, whatever came before.
EDGE = regex.compile(r"(?<=\S)\s")


def pieces(text: str, size: int = SIZE) -> Iterator[str]:
    """A text in pieces of at least `size` characters, but for the last. Their words are those of the text.

    >>> list(pieces("a bc  d", size=2))
    ['a bc', '  d']
    """
    begin = 0
    while begin < len(text):
        edge = EDGE.search(text, begin + size)
        end = edge.start() if edge else len(text)
        yield text[begin:end]
        begin = end
