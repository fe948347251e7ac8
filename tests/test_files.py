"""Small text files, and files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from numpy_gpt2.files import read_json, read_text, write_atomically


def test_text_is_read_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("é\r\n漢".encode())
    assert read_text(tmp_path / "file") == "é\n漢"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^file is missing in {tmp_path}$"):
        read_text(tmp_path / "file")


@pytest.mark.parametrize("content", [b"\xff", b"", b"{", b"[" * 100_000, b"9" * 5000], ids=lambda c: str(c[:9]))
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/file is not (JSON|text in UTF-8)"):
        read_json(tmp_path / "file")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        assert file.read_text() == "before"
        raise OSError("in the middle")

    with pytest.raises(OSError, match="in the middle"):
        write_atomically(file, fail)
    assert file.read_text() == "before"
    write_atomically(file, lambda temporary: temporary.write_text("after"))
    assert file.read_text() == "after"
    assert [*tmp_path.iterdir()] == [file]


def test_it_is_as_private_as_the_umask_says_even_if_its_writer_is_stricter(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("text")
        temporary.chmod(0o600)

    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", write)
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
