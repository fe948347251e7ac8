"""A lock that is fair: whoever waits longest is next, so that two readers take turns."""

from __future__ import annotations

import sys
import threading
from collections import deque


class Turns:
    """A lock, to be used by `with`. `threading.Lock` may let one thread in again and again while another one waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()  # the first is the one whose turn it is

    def __enter__(self) -> None:
        turn = threading.Event()
        with self._lock:
            self._queue.append(turn)
            if self._queue[0] is turn:
                turn.set()
        if sys.platform != "emscripten":  # where the one thread would wait for itself: several answers may be under way
            turn.wait()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._queue.popleft()
            if self._queue:
                self._queue[0].set()
