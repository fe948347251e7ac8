"""Reacting to a log message at the moment it is logged: for tests that wait until another thread or process waits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator


class Reaction(logging.Handler):
    """A handler that calls a function with the text of each message."""

    def __init__(self, react: Callable[[str], object]) -> None:
        super().__init__()
        self.react = react

    def emit(self, record: logging.LogRecord) -> None:
        self.react(record.getMessage())


@contextlib.contextmanager
def on_message(logger: str, react: Callable[[str], object]) -> Iterator[None]:
    """Calls `react` with the text of each message of a logger, in the thread that logs it."""
    handler = Reaction(react)
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)
