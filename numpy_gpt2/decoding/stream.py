"""The text of one row, piece by piece, or its ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .detokenizer import Detokenizer
from .row import FinishReason, Row
from .speculation import log_drafts


class TextStream(Iterator[Any]):
    """The text of a row in pieces, each as soon as it is certain; without a detokenizer, its ids one by one.

    A piece is made of whole characters: a character that takes several tokens comes with the last of them.
    What may be the beginning of a stop string waits until that is known.

    Args:
        row: the row.
        steps: makes the row grow, one step at a time.
    """

    def __init__(self, row: Row, steps: Iterator[int]) -> None:
        self._row = row
        self._pieces = text_pieces(row.detokenizer, steps) if row.detokenizer else ids(row, steps)

    def log_drafts(self) -> None:
        """Logs how many tokens were drafted so far, and how many of them accepted."""
        log_drafts([self._row])

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended; None while it grows, and if it was interrupted."""
        return self._row.finish_reason

    def __next__(self) -> Any:
        return next(self._pieces)


def text_pieces(detokenizer: Detokenizer, steps: Iterator[int]) -> Iterator[str]:
    """The text of a row, as the steps make it grow."""
    while True:
        if piece := detokenizer.take():
            yield piece
        if next(steps, None) is None:
            break
    detokenizer.finish()
    if rest := detokenizer.take():
        yield rest


def ids(row: Row, steps: Iterator[int]) -> Iterator[int]:
    """The ids of a row, as the steps make it grow."""
    n_taken = 0
    while True:
        made = row.result_ids
        yield from made[n_taken:]
        n_taken = len(made)
        if next(steps, None) is None:
            break
