"""How every command of this package ends: with a sentence where something is wrong, never with a traceback."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

from .files import read_text


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line, and for which `--top_k` is `--top-k`, as in other programs."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments that are known, and the others."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        for i, argument in enumerate(given[:end]):
            name, *value = argument.split("=", 1)
            if name.startswith("--"):
                given[i] = "=".join([name.replace("_", "-"), *value])
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        self.exit(2, f"numpy_gpt2: {message} (--help lists the options)\n")


def run(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit status.

    0 when it went well, 1 after an error, which is printed in a sentence; as shells count, 130 after
    Ctrl-C and 141 when nobody reads the output any more, both silently. A closed standard output or
    error is taken for one that nobody wants, and characters that standard output cannot show become "?".
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  stays open
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the program at once, and as silently
        return 130
    except BrokenPipeError:
        abandon_output()
        return 141
    except (ValueError, OSError, ImportError, MemoryError) as error:
        abandon_output()
        print(f"numpy_gpt2: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


def log_to_standard_error() -> None:
    """Shows the package's notices as lines on standard error."""
    logging.basicConfig(format="numpy_gpt2: %(message)s")
    logging.getLogger("numpy_gpt2").setLevel(logging.INFO)


def read_input(name: str) -> str:
    """The text in a file, or that of standard input if its name is a dash.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8.
    """
    if name == "-":
        return standard_input().read().removeprefix("\ufeff")
    try:
        return read_text(Path(name))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}") from None


def standard_input() -> TextIO:
    """Standard input, whatever its line ends; bytes in it that are no text stay for the tokenizer to complain of.

    If it is closed, there is nothing in it. To be called once, before anything is read.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape", newline=None)
    return sys.stdin or io.StringIO()


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody sits at the other end; not so if the stream is closed."""
    return stream is not None and stream.isatty()


def is_file(stream: IO[str]) -> bool:
    """Whether what is written goes to a file on a disk, so that nobody sees it grow."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or nothing that the operating system knows
        return False


def progress_bar(total: int, unit: str) -> AbstractContextManager[Any]:
    """A progress bar on standard error, a tqdm, if that is a terminal and the work takes longer than two seconds."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=True, delay=2, leave=False, disable=None)


def sentence(error: Exception) -> str:
    """What to print of an error."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    return str(error) or "there is not enough memory"  # which Python leaves without a word


def abandon_output() -> None:
    """Discards what standard output still holds: the interpreter would try to write it again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed, or no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
