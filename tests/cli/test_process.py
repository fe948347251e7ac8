"""How a command ends."""

from __future__ import annotations

import errno
import io
import json
import logging
import math

import numpy as np
import pytest

from numpy_gpt2.cli.process import OneLine, run, show, show_object

INSTALL = "`pip install .` in the project's folder installs what the package needs"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("a sentence"), 1, "numpy_gpt2: a sentence\n"),
        (ImportError("a sentence"), 1, "numpy_gpt2: a sentence\n"),
        (
            ModuleNotFoundError("No module named 'tqdm'"),
            1,
            f"numpy_gpt2: No module named 'tqdm': {INSTALL}\n",
        ),
        (FileNotFoundError("a sentence"), 1, "numpy_gpt2: a sentence\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "some/file"),
            1,
            "numpy_gpt2: some/file: Permission denied\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "numpy_gpt2: No space left on device\n"),
        (MemoryError(), 1, "numpy_gpt2: there is not enough memory\n"),
        (KeyboardInterrupt(), 130, ""),
        (None, 0, ""),
    ],
    ids=repr,
)
def test_errors_become_a_sentence_and_a_status(
    error: BaseException | None, status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        if error:
            raise error

    assert run(command) == status
    assert capfd.readouterr().err == message


def test_a_programming_error_is_not_hidden() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a \x1b[31mred\x1b[0m name", r"a \x1b[31mred\x1b[0m name"),
        ("two\r\nlines\tand a tab", "two lines and a tab"),
        ("a bell \x07, DEL \x7f and C1 \x9b1m", r"a bell \x07, DEL \x7f and C1 \x9b1m"),
        ("née 昔々 🙂", "née 昔々 🙂"),
        ("from right \u202eto left\u2069", r"from right \u202eto left\u2069"),
        ("x" * 5000, "x" * 2000 + "…"),
    ],
    ids=str,
)
def test_a_message_is_one_line_that_is_safe_for_a_terminal(
    message: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ValueError(message)

    assert run(command) == 1
    assert capfd.readouterr().err == f"numpy_gpt2: {line}\n"
    record = logging.LogRecord("numpy_gpt2", logging.INFO, "file", 1, "%s", (message,), None)
    assert OneLine().format(record) == f"numpy_gpt2: {line}"


def test_text_reaches_a_terminal_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a file or a pipe stays as it is."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "a\ttab, a line end\nand \x1b]0;a title\x07"
    for stream, expected in (
        (io.StringIO(), text),
        (
            Terminal(),
            r"""a	tab, a line end
and \x1b]0;a title\x07""".replace(r"\t", "\t"),
        ),
    ):
        monkeypatch.setattr("sys.stdout", stream)
        show(text, end="")
        assert stream.getvalue() == expected


def test_streams_that_are_redirected_the_wrong_way_round(capfd: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    assert run(command) == 1
    assert capfd.readouterr().err.endswith("are < and > the right way round?\n")


def test_numbers_that_json_does_not_have_are_null(capfd: pytest.CaptureFixture[str]) -> None:
    numbers = {"loss": math.nan, "perplexity": math.inf, "rank": np.int64(3), "share": np.float32(0.5), "token": "née"}
    show_object(numbers)
    expected = {"loss": None, "perplexity": None, "rank": 3, "share": 0.5, "token": "née"}
    assert json.loads(capfd.readouterr().out) == expected
