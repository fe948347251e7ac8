"""The lock that is fair."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable

import pytest

from numpy_gpt2.page.turns import Turns

WAIT = 20  # seconds after which a test that hangs fails


def join(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()


def test_whoever_waits_longest_is_next() -> None:
    """Also before the one who has just had a turn."""
    turns, order = Turns(), list[str]()

    def take(name: str) -> None:
        with turns:
            order.append(name)

    threads = [threading.Thread(target=take, args=[name], daemon=True) for name in ("first", "second", "third")]
    with turns:
        for n_waiting, thread in enumerate(threads, start=1):
            thread.start()
            while thread.is_alive() and len(turns._queue) <= n_waiting:  # the holder is in the queue as well
                threading.Event().wait(0)
        assert order == []
    take("the holder again")
    join(threads)
    assert order == ["first", "second", "third", "the holder again"]


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                inside += 1
                most = max(most, inside)
                threading.Event().wait(0)
                inside -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    join(threads)
    assert (inside, most) == (0, 1)


def test_an_error_ends_a_turn() -> None:
    turns = Turns()

    def fail() -> None:
        with contextlib.suppress(ZeroDivisionError), turns:
            raise ZeroDivisionError

    threads = [threading.Thread(target=fail, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    join(threads)


def test_in_pyodide_the_one_thread_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "emscripten")
    turns = Turns()
    with turns, turns:
        pass
    with turns:
        pass
