"""What Ctrl-C does: end the command silently while it imports its modules, and raise KeyboardInterrupt afterwards.

The first takes effect when this module is imported, so `main` imports it before anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


def end_silently() -> None:
    """Makes Ctrl-C end the process without a word, unless it is ignored, as it is for a job in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # not the main thread, which alone may do this
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt again, since there may be something to clean up from now on."""
    sys.unraisablehook = end_at_once
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def deferred(notice: str) -> Iterator[Callable[[], bool]]:
    """Within this context, Ctrl-C only prints a notice, and is remembered. A second one ends the process at once.

    The same goes for SIGTERM, with which a system asks processes to end.

    Returns:
        A function that says whether there was one.
    """
    seen = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        seen.set()
        signal.signal(number, signal.SIG_DFL)
        os.write(2, f"\nnumpy_gpt2: {notice}\n".encode())  # print could be interrupted while it prints

    if threading.current_thread() is not threading.main_thread():
        yield seen.is_set
        return
    ours = (signal.default_int_handler, signal.SIG_DFL)  # others are ignored, or not ours to handle
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    taken = {number: handler for number, handler in before.items() if handler in ours}
    for number in taken:
        signal.signal(number, remember)
    try:
        yield seen.is_set
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def end_at_once(unraisable: sys.UnraisableHookArgs) -> None:
    """Ends the process if Ctrl-C came where Python cannot raise, but only prints, such as in a finalizer."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        os._exit(130)
    sys.__unraisablehook__(unraisable)


end_silently()
