"""The folder that a command writes to: named, checked, and kept to one process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..hub.names import NAMES, expand
from ..machine.files import locked


def output_folder(name: str) -> Path:
    """The folder that `--output` names.

    Raises:
        ValueError: no name is given, or that of a file or a model.
    """
    if not name:
        raise ValueError("name a folder to save to; '.' is the one in which you are")
    if name in NAMES:
        raise ValueError(f"{name!r} is the name of a model: write the folder as './{name}'")
    folder = expand(name)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: name a folder to save to")
    return folder


@contextlib.contextmanager
def reserved(folder: Path, lock: str, doing: str) -> Iterator[None]:
    """Within this context, no other process does the same in a folder.

    A folder that does not exist is made, and removed again if nothing is saved to it.

    Args:
        folder: the folder.
        lock: the name of the lock file.
        doing: what the process does there, for the message to another one.

    Raises:
        OSError: the folder cannot be made or locked.
        ValueError: another process does it there.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False, name=lock))
        except BlockingIOError:
            raise ValueError(f"another process is {doing} in {folder}: name another folder") from None
        try:
            yield
        finally:
            if is_new and [file.name for file in folder.iterdir()] == [lock]:
                (folder / lock).unlink()
                folder.rmdir()
