"""How a command ends."""

from __future__ import annotations

import errno

import pytest

from numpy_gpt2.cli.process import run


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("a sentence"), 1, "numpy_gpt2: a sentence\n"),
        (ImportError("a sentence"), 1, "numpy_gpt2: a sentence\n"),
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
