"""Files: reading small ones, writing whole ones or none, and keeping a folder to one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # how file systems say so


def read_text(file: Path) -> str:
    """Reads a text file, with any line ends and without the byte order mark that it may begin with.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8.
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
    """Reads a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON in UTF-8.
    """
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): replace it with a sound copy") from None


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object: names and values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON in UTF-8, or holds something else.
    """
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} must be a JSON object, of names and values")
    return values


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Creates a file by calling `write(temporary)`, and gives it its name only when it is complete.

    Whatever goes wrong half-way, even a power cut, there is either the new file or the one that was there
    before. The temporary file always has the same name, so the next call overwrites what a killed process
    left. Two writers at once must be kept apart by `locked`.

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
    """Writes a JSON file, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(content, ensure_ascii=False, indent=indent) + "\n"
    write_atomically(file, lambda temporary: temporary.write_bytes(text.encode()))


def sync(file: Path) -> None:
    """Waits until all of a file is on the disk.

    Raises:
        OSError: the file cannot be written to the disk.
    """
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def digest(file: Path, name: str) -> str:
    """The hash of a file in hexadecimal; the hash function is named as in hashlib."""
    hash = hashlib.new(name, usedforsecurity=False)
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            hash.update(chunk)
    return hash.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process or thread is in a `locked` of the same folder, then keeps the others out.

    The operating system releases the lock when the process ends, however it ends. The file `.lock` stays.

    Raises:
        OSError: the folder does not exist, cannot be written, or is on a file system without locks.
    """
    from filelock import FileLock, Timeout

    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    lock = FileLock(folder / ".lock", fallback_to_soft=False)  # a soft lock would outlive a process that is killed
    try:
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            log.warning("another process is writing to %s: waiting until it is done", folder)
            held = lock.acquire()
    except OSError as error:
        reason = "the file system has no locks" if error.errno in WITHOUT_LOCKS else error.strerror
        raise OSError(error.errno, reason, os.fspath(folder)) from None
    with held:
        yield
