"""Reading small text files, writing any file whole or not at all, and one writer at a time in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)


def read_text(file: Path) -> str:
    """The text in a file, whatever its line ends, and without the mark that Windows may put before it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file.name} is missing in {file.parent}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not text in UTF-8 ({error}): convert it, or replace it with a sound copy"
        ) from None


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
        raise ValueError(f"{file} is not JSON ({error}): replace it with a sound copy") from None


def read_object(file: Path) -> dict[str, Any]:
    """The names and values in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON in UTF-8, or not an object.
    """
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} must be a JSON object, of names and values")
    return values


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Makes a file by `write(temporary)` and only then gives it its name.

    Whatever goes wrong half-way, even a power cut, there is either the whole file or the one that was
    there before. The temporary file is always of the same name, so that what a killed process has left
    is used up by the next one; two writers at once must be kept apart by `locked`.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    temporary = file.with_name(f".{file.name}.part")
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, content: Any, indent: int | None = None) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent) + "\n"
    write_atomically(file, lambda temporary: temporary.write_bytes(text.encode()))


def sync(file: Path) -> None:
    """Waits until the disk has all of a file.

    Raises:
        OSError: the disk does not take it.
    """
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def digest(file: Path, name: str) -> str:
    """The hash of a file, by its name in hashlib, in hexadecimal."""
    hash = hashlib.new(name, usedforsecurity=False)
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            hash.update(chunk)
    return hash.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process, and no other thread, is in a `locked` of the same folder; then keeps them out.

    The operating system ends the lock with the process, however that ends. The file `.lock` stays.

    Raises:
        OSError: the folder cannot be written.
    """
    with (folder / ".lock").open("ab") as file:
        if not lock(file, wait=False):
            log.warning("another process is writing to %s: waiting until it is done", folder)
            lock(file, wait=True)
        yield


def lock(file: IO[bytes], wait: bool) -> bool:
    """Locks an open file until it is closed. False if another has locked it, unless it should wait for that to end."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # with LK_LOCK, after ten attempts, one a second
                if not wait:
                    return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
