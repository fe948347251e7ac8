"""Drafts from the text so far: it may go on as it did when its last tokens came before.

This pays where a text is copied, edited or quoted, or repeats itself, and needs no second model.

Source: Saxena 2023, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Sequence

from . import speculation
from .row import Row

N_MATCHING = 2  # A guess needs this many last tokens that came before, in the same order.
LONGEST = 8  # Matches of more tokens are not told apart.
LATELY = 1 / 4  # The weight of the last guess in the share of right ones: less is slower on a copy with changes.


class Lookup:
    """Finds where the last tokens of a text came before, and guesses that the same tokens follow.

    Every guess is compared with the token that came, whether it was drafted or not, and also in the prompt. So it
    costs nothing to know how good the guesses are: on a text without repetition nothing is drafted.

    Args:
        n_most: the most tokens to draft at a time.
    """

    def __init__(self, n_most: int) -> None:
        self._n_most = n_most
        self._n_read = 0  # tokens
        self._after: dict[tuple[int, ...], int] = {}  # where each N_MATCHING tokens were followed the last time
        self._source = 0  # the position of the token that is guessed to come next
        self._n_matched = 0  # how many tokens before the source are the last of the text; 0 without a guess
        # By the number of matched tokens: how often the guess was right lately. At first, a little less than in tales.
        self._chances = [n / (n + 6) for n in range(LONGEST + 1)]

    def draft(self, row: Row, n_most: int) -> list[int]:
        """The tokens that may follow, at most n_most, and none if that is likely to be faster."""
        for i in range(self._n_read, len(row.tokens)):
            self._read(row.tokens, i)
        self._n_read = len(row.tokens)
        if not self._n_matched:
            return []
        chances = [self._chances[min(self._n_matched + i, LONGEST)] for i in range(min(n_most, self._n_most))]
        return repeat_from(row.tokens, self._source, speculation.best_length(chances))

    def _read(self, tokens: Sequence[int], i: int) -> None:
        """Compares token i with the guess, and makes the next guess: the same source goes on, or a new one is found."""
        last = tuple(tokens[max(0, i + 1 - N_MATCHING) : i + 1])
        found = self._after.get(last, 0)
        self._after[last] = i + 1
        if self._n_matched and self._is_right(tokens[i] == tokens[self._source]):
            self._source += 1
            self._n_matched = min(self._n_matched + 1, LONGEST)
        else:
            self._source = found
            self._n_matched = count_matching(tokens, found, i + 1)

    def _is_right(self, right: bool) -> bool:
        """Counts a guess."""
        self._chances[self._n_matched] += LATELY * (right - self._chances[self._n_matched])
        return right


def count_matching(tokens: Sequence[int], a: int, b: int) -> int:
    """How many tokens before a are those before b, but not more than LONGEST.

    >>> count_matching([7, 1, 2, 3, 8, 1, 2, 3], 4, 8)
    3
    """
    n = 0
    while n < min(a, LONGEST) and tokens[a - 1 - n] == tokens[b - 1 - n]:
        n += 1
    return n


def repeat_from(tokens: Sequence[int], source: int, n: int) -> list[int]:
    """The n tokens from a position on; at the end of the text, those that it would go on with.

    >>> repeat_from([5, 1, 2, 3], 1, 5)
    [1, 2, 3, 1, 2]
    """
    copied = list(tokens[source : source + n])
    while len(copied) < n:
        copied += copied[: n - len(copied)]
    return copied
