"""To be imported before anything else by a command: Ctrl-C then ends it silently while it imports its modules."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and Ctrl-C is not ignored, as in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_from_now_on() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt again: there may be something to clean up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
