"""Reading small text files and writing any file whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_text(file: Path) -> str:
    """The text in a file, whatever its line ends.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.name} is missing in {file.parent}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 ({error}): delete it, and download it again") from None


def read_json(file: Path) -> Any:
    """What a JSON file says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON in UTF-8.
    """
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): delete it, and download it again") from None


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Makes a file by `write(temporary)` and only then gives it its name.

    Whatever goes wrong half-way, even a power cut, there is either the whole file or the one that
    was there before. Two writers at once do not meet: each has its own temporary name.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask has it; some libraries make private files
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
