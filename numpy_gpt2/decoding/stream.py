"""The text of one row, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from .detokenizer import Detokenizer
from .row import FinishReason, Row
from .speculation import log_drafts


class TextStream(Iterator[str]):
    """The text of a row in pieces, each as soon as it is certain.

    A piece is made of whole characters: a character that takes several tokens comes with the last of them.
    What may be the beginning of a stop string waits until that is known.

    Args:
        row: the row, with a detokenizer.
        steps: makes the row grow, one step at a time.
    """

    def __init__(self, row: Row, steps: Iterator[int]) -> None:
        assert row.detokenizer
        self._row = row
        self._pieces = self._as_they_come(row.detokenizer, steps)

    def log_drafts(self) -> None:
        """Logs how many tokens were drafted so far, and how many of them accepted."""
        log_drafts([self._row])

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text ended; None while it grows, and if it was interrupted."""
        return self._row.finish_reason

    def __next__(self) -> str:
        return next(self._pieces)

    @staticmethod
    def _as_they_come(detokenizer: Detokenizer, steps: Iterator[int]) -> Iterator[str]:
        while True:
            if piece := detokenizer.take():
                yield piece
            if next(steps, None) is None:
                break
        detokenizer.finish()
        if rest := detokenizer.take():
            yield rest
