"""Small text files, files that are written completely or not at all, hashes, and locked folders."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from log_messages import on_message

from numpy_gpt2.machine.files import (
    digest,
    locked,
    read_json,
    read_object,
    read_text,
    replace_files,
    write_atomically,
    write_json,
)


def test_text_is_read_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("é\r\n漢".encode())
    assert read_text(tmp_path / "file") == "é\n漢"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^file is missing in {tmp_path}$"):
        read_text(tmp_path / "file")


@pytest.mark.parametrize("content", [b"\xff", b"", b"{", b"[" * 100_000, b"9" * 5000], ids=lambda c: str(c[:9]))
def test_a_file_that_is_not_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/file is not (JSON|text in UTF-8)"):
        read_json(tmp_path / "file")


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def fail(temporary: Path) -> None:
        temporary.write_text("aft")
        assert file.read_text() == "before"
        raise OSError("in the middle")

    with pytest.raises(OSError, match="in the middle"):
        write_atomically(file, fail)
    assert file.read_text() == "before"
    write_atomically(file, lambda temporary: temporary.write_text("after"))
    assert file.read_text() == "after"
    assert [*tmp_path.iterdir()] == [file]


def test_the_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("text"))
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_the_temporary_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.part").write_text("a longer text than the new one")
    write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("after"))
    assert (tmp_path / "file").read_text() == "after"
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


@pytest.mark.parametrize("content", ["[]", "5", "null", '"text"'])
def test_json_that_is_not_an_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match="file must be a JSON object, of names and values"):
        read_object(tmp_path / "file")


def test_written_json_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"é": ["漢", 1, None]})
    assert read_object(tmp_path / "file") == {"é": ["漢", 1, None]}
    assert (tmp_path / "file").read_bytes() == '{"é": ["漢", 1, null]}\n'.encode()


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**20 + 1])
def test_hashes(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * length)
    assert digest(tmp_path / "file", "sha256") == hashlib.sha256(b"x" * length).hexdigest()
    assert digest(tmp_path / "file", "md5") == hashlib.md5(b"x" * length).hexdigest()


class TestLock:
    HOLD = """
import sys
from pathlib import Path
from numpy_gpt2.machine.files import locked
with locked(Path(sys.argv[1]), name=sys.argv[2]):
    print("locked", flush=True)
    sys.stdin.read()
"""

    def hold(self, folder: Path, name: str = ".lock") -> subprocess.Popen[str]:
        """Starts another process that locks the folder until its standard input is closed."""
        args = [sys.executable, "-c", self.HOLD, str(folder), name]
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        return process

    @pytest.mark.parametrize("end", ["finish", "kill"])
    def test_it_waits_for_the_other_process_with_a_warning(self, tmp_path: Path, end: str) -> None:
        messages = []
        with self.hold(tmp_path) as process:

            def end_the_process(message: str) -> None:
                messages.append(message)
                assert process.poll() is None
                if end == "kill":
                    process.kill()
                elif process.stdin:
                    process.stdin.close()

            with on_message("numpy_gpt2.machine.files", end_the_process), locked(tmp_path):
                pass
        assert messages == [f"another process is writing to {tmp_path}: waiting until it is done"]

    def test_another_folder_is_not_locked(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "other").mkdir()
        with locked(tmp_path), locked(tmp_path / "other"):
            pass
        with locked(tmp_path):
            pass
        assert not caplog.messages

    def test_locks_of_different_names_do_not_keep_each_other_out(self, tmp_path: Path) -> None:
        with self.hold(tmp_path, ".run.lock") as process:
            with locked(tmp_path, wait=False), locked(tmp_path, wait=False, name=".other.lock"):
                pass
            with pytest.raises(BlockingIOError), locked(tmp_path, wait=False, name=".run.lock"):
                pass
            process.kill()
        with locked(tmp_path, wait=False, name=".run.lock"):
            pass
        assert {file.name for file in tmp_path.iterdir()} == {".lock", ".run.lock", ".other.lock"}

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"), locked(tmp_path / "nowhere"):
            pass

    @pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
    def test_a_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        fcntl = pytest.importorskip("fcntl")

        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)
        message = f"the file system has no locks: '{tmp_path}'"
        with pytest.raises(OSError, match=re.escape(message)), locked(tmp_path):
            pass


def test_pyodide_has_neither_locks_nor_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").touch()
    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setitem(sys.modules, "filelock", None)
    monkeypatch.delattr(os, "link")
    with locked(tmp_path):
        replace_files(tmp_path, lambda staging: (staging / "new").write_text("text"), ["old"])
    assert [file.name for file in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new").read_text() == "text"
    with pytest.raises(FileNotFoundError, match="there is no folder"), locked(tmp_path / "other"):
        pass
