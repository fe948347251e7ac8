"""How the command runs and ends: its streams, its messages, its exit status, and never a traceback."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import math
import numbers
import os
import re
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TextIO

from ..machine.files import read_text

# All but the tab and the line end; and those that end a line or change the direction of writing.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
LONGEST_MESSAGE = 2000  # characters


def run(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit status.

    The status is 0 on success and 1 after an error, which is printed as a sentence. After Ctrl-C it is 130, and
    141 when nobody reads the output any more, as shells count; both are silent. A closed standard output or
    standard error is treated as one that discards everything, and characters that standard output cannot show
    become "?".
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  stays open
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of numbers that are not finite: an error says that
    try:
        command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the program at once, and as silently
        return 130
    except BrokenPipeError:
        abandon_output()
        return 141
    except (ValueError, OSError, ImportError, MemoryError) as error:
        abandon_output()
        print(f"numpy_gpt2: {one_line(sentence(error))}", file=sys.stderr)
        return 1
    return 0


class OneLine(logging.Formatter):
    """Makes a line of each message."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, with the name of the package before it."""
        return f"numpy_gpt2: {one_line(record.getMessage())}"


def log_to_standard_error(level: int = logging.INFO) -> None:
    """Shows the package's messages, from this level on, as lines on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("numpy_gpt2").setLevel(level)


def printable(text: str) -> str:
    r"""The text, with an escape for each control character that could make a terminal do something.

    >>> printable("one\ttwo\n\x1b[31mred")
    'one\ttwo\n\\x1b[31mred'
    """
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(message: str) -> str:
    """A message in one line that is safe for a terminal, and no longer than anybody would read."""
    line = printable(" ".join(message.split()))
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"


def show(text: str, end: str = "\n") -> None:
    """Prints text from a model or a user at once; on a terminal without control characters."""
    print(printable(text) if is_terminal(sys.stdout) else text, end=end, flush=True)


def show_object(values: dict[str, Any]) -> None:
    """Prints a JSON object in a line. A number that JSON does not have, NaN or infinity, becomes null."""
    plain = {
        name: None if isinstance(value, numbers.Real) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    print(json.dumps(plain, default=lambda number: number.item()), flush=True)


def argument_text(argument: str) -> str:
    """The text of an argument, which is UTF-8, even where the locale makes Python decode arguments as ASCII."""
    return os.fsencode(argument).decode(errors="surrogateescape")


def given_text(argument: str | None, exact: bool = False) -> str:
    """The text of an argument or, if that is missing or a dash, of standard input without its last line end.

    Args:
        argument: the argument.
        exact: as for `read_input`.

    Raises:
        OSError: standard input cannot be read.
    """
    if argument is None or argument == "-":
        return read_input("-", exact).removesuffix("\n")  # `echo` adds this line end
    return argument_text(argument)


def read_input(name: str, exact: bool = False) -> str:
    """The text in a file, or that of standard input if the name is a dash.

    Args:
        name: the name.
        exact: whether to keep carriage returns before line feeds, and a byte order mark.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8.
    """
    newline = "" if exact else None
    if name == "-":
        text = standard_input(newline).read()
        return text if exact else text.removeprefix("\ufeff")
    try:
        return read_text(Path(name), newline, "utf-8" if exact else "utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {name}") from None


def check_standard_input(names: Sequence[str | None]) -> None:
    """Checks that at most one of the names of files to read is a dash.

    Raises:
        ValueError: several are.
    """
    if list(names).count("-") > 1:
        raise ValueError("standard input can be read only once: give - once")


def standard_input(newline: str | None = None) -> TextIO:
    """Standard input, in UTF-8; the tokenizer complains about bytes in it that are not text.

    A closed standard input is an empty one. To be called once, before anything is read.

    Args:
        newline: as for `open`; by default, every line end is read as a line feed.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline=newline)
    return sys.stdin or io.StringIO()


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether the stream is a terminal; a closed stream is not."""
    return stream is not None and stream.isatty()


def is_file(stream: IO[str]) -> bool:
    """Whether the stream is a file on disk, so that nobody sees it grow."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or not a stream of the operating system
        return False


def progress_bar(total: int, unit: str) -> AbstractContextManager[Any]:
    """A progress bar (tqdm) on standard error, if that is a terminal and the work takes longer than two seconds."""
    from tqdm import tqdm

    is_quiet = not logging.getLogger("numpy_gpt2").isEnabledFor(logging.WARNING)
    return tqdm(total=total, unit=unit, unit_scale=total >= 10_000, delay=2, leave=False, disable=is_quiet or None)


def sentence(error: Exception) -> str:
    """What to print about an error."""
    if isinstance(error, OSError) and error.errno == errno.EBADF and not error.filename:
        return "standard input cannot be read, or standard output cannot be written: are < and > the right way round?"
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: `pip install .` in the project's folder installs what the package needs"
    return str(error) or "there is not enough memory"  # a MemoryError of Python has no text


def abandon_output() -> None:
    """Discards what standard output still holds, which the interpreter would otherwise try to write when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed, or not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
