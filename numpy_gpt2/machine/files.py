"""Files: reading small ones, writing whole ones or none, and keeping a folder to one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # how file systems say so

# Folders inside a folder whose files are being replaced: new files that are still being written, and new files that
# are complete.
SAVING, SAVED = ".numpy_gpt2.saving", ".numpy_gpt2.saved"


def read_text(file: Path, newline: str | None = None, encoding: str = "utf-8-sig") -> str:
    """Reads a text file, by default without the byte order mark that it may begin with.

    Args:
        file: the file.
        newline: as for `open`; by default, every line end is read as a line feed.
        encoding: "utf-8" to keep a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8.
    """
    try:
        with file.open(encoding=encoding, newline=newline) as opened:
            return opened.read()
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


def write_text(file: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(file, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(file: Path, content: Any, indent: int | None = None) -> None:
    """Writes a JSON file, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(file, json.dumps(content, ensure_ascii=False, indent=indent) + "\n")


def replace_files(folder: Path, write: Callable[[Path], object], names: Iterable[str]) -> None:
    """Replaces several files of a folder in one step.

    `write(staging)` writes the new files to an empty folder beside the old ones. When all of them are on the disk, that
    folder is renamed, and from then on the new files count: `current_folder` finds them. Only then do they take the
    place of the old ones. If this is interrupted before the renaming, the old files stay as they are; if after it,
    `settle` does the rest.

    Args:
        folder: the folder, which must be `locked`, and in which `settle` has left nothing.
        write: writes the new files.
        names: files that are removed if they are not among the new ones.

    Raises:
        OSError: a file cannot be written; the message says which files count.
    """
    staging = folder / SAVING
    try:
        staging.mkdir()
        write(staging)
        for file in staging.iterdir():
            sync(file)
        staging.replace(folder / SAVED)
    except OSError as error:
        raise with_outcome(error, folder, "nothing was saved, and what the folder held is whole") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    try:
        put_in_place(folder, names)
    except OSError as error:
        raise with_outcome(error, folder, "the new files are complete; load or save again to finish") from error


def with_outcome(error: OSError, folder: Path, outcome: str) -> OSError:
    """The error, with the folder and with what it holds now."""
    return OSError(error.errno, f"{error.strerror or error}: {outcome}", os.fspath(folder))


def put_in_place(folder: Path, names: Iterable[str]) -> None:
    """Gives the complete new files of a folder the places of the old ones. They stay complete until all are there.

    Raises:
        OSError: a file cannot be written.
    """
    saved = folder / SAVED
    new = sorted(saved.iterdir())
    for file in new:
        write_atomically(folder / file.name, partial(link_or_copy, file))
    for name in {*names} - {file.name for file in new}:
        (folder / name).unlink(missing_ok=True)
    saved.replace(folder / SAVING)  # at once; to delete file after file would leave a part of them
    shutil.rmtree(folder / SAVING)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name or, on a file system without links, copies it.

    Raises:
        OSError: the target cannot be written.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except (OSError, AttributeError):  # Pyodide has no os.link
        shutil.copyfile(source, target)


def is_settled(folder: Path) -> bool:
    """Whether no `replace_files` is under way in a folder, or was interrupted."""
    return not (folder / SAVING).exists() and not (folder / SAVED).exists()


def settle(folder: Path, names: Iterable[str]) -> None:
    """Completes or discards what an interrupted `replace_files` left in a folder, and says so.

    Args:
        folder: the folder, which must be `locked`.
        names: as for `replace_files`.

    Raises:
        OSError: a file cannot be written or deleted.
    """
    if (folder / SAVING).exists():
        shutil.rmtree(folder / SAVING)
        log.warning("%s: what an interrupted save had left was discarded; the files saved before are whole", folder)
    if (folder / SAVED).exists():
        put_in_place(folder, names)
        log.warning("%s: an interrupted save was completed; the folder holds what was saved last", folder)


def current_folder(folder: Path) -> Path:
    """Where the files of a folder are to be read: in it, or where a `replace_files` has just completed new ones."""
    return folder / SAVED if (folder / SAVED).exists() else folder


def read_unchanged(folder: Path, read: Callable[[Path], T], names: Iterable[str]) -> T:
    """Reads files of a folder, all of them from before or all from after a `replace_files` of another process.

    Args:
        folder: the folder.
        read: called with the folder in which the files are; called again if they were replaced meanwhile.
        names: files that change whenever the folder does.

    Returns:
        What `read` returns.

    Raises:
        Whatever `read` raises, about a folder that stays the same.
    """
    while True:
        before = state(folder, names)
        try:
            result = read(current_folder(folder))
        except (OSError, ValueError):
            if state(folder, names) == before:
                raise
        else:
            if state(folder, names) == before:
                return result


def state(folder: Path, names: Iterable[str]) -> list[tuple[int, int]]:
    """What changes when files of a folder are replaced: the files, and whether others wait for their place."""
    found = []
    for name in (SAVED, *names):  # in this order, since the files change while there are new ones
        with contextlib.suppress(OSError):
            status = (folder / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
    return found


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
def locked(folder: Path, wait: bool = True, name: str = ".lock") -> Iterator[None]:
    """Waits until no other process or thread is in a `locked` of the same folder, then keeps the others out.

    The operating system releases the lock when the process ends, however it ends. The lock file stays. In Pyodide there
    is one process with one thread, and so no lock.

    Args:
        folder: the folder.
        wait: False for an error in place of waiting.
        name: of the lock file; locks of different names do not keep each other out.

    Raises:
        BlockingIOError: the folder is locked, and this was not to wait.
        OSError: the folder does not exist, cannot be written, or is on a file system without locks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if sys.platform == "emscripten":
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder / name, fallback_to_soft=False)  # a soft lock would outlive a process that is killed
    try:
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, "another process is writing to the folder") from None
            log.warning("another process is writing to %s: waiting until it is done", folder)
            held = lock.acquire()
    except OSError as error:
        reason = "the file system has no locks" if error.errno in WITHOUT_LOCKS else error.strerror
        raise OSError(error.errno, reason, os.fspath(folder)) from None
    with held:
        yield
