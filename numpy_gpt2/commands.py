"""How every command of this package ends: with a sentence where something is wrong, never with a traceback."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def run(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit status.

    0 when it went well, 1 after an error, which is printed in a sentence; as shells count, 130 after
    Ctrl-C and 141 when nobody reads the output any more, both silently.
    """
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        abandon_output()
        return 141
    except (ValueError, OSError, ImportError, MemoryError) as error:
        abandon_output()
        print(f"numpy_gpt2: {error or 'there is not enough memory'}", file=sys.stderr)
        return 1
    return 0


def abandon_output() -> None:
    """Lets what standard output still holds go nowhere: the interpreter would try to write it again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed, or no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
