"""`numpy-gpt2 vocabulary`: what it writes, says and refuses."""

from __future__ import annotations

import errno
import io
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from on_disk import steps_patched

from numpy_gpt2.cli.main import main, whole_parser
from numpy_gpt2.machine.files import current_folder, locked
from numpy_gpt2.text.vocabulary import find_vocabulary
from numpy_gpt2.tokenizer import END_OF_TEXT, Tokenizer, split
from numpy_gpt2.training.vocabulary import count_words, from_merges, learn

TEXT = "".join(f"Once upon a time there was a king who had {n} daughters.\n" for n in range(60))

FILES = {"encoder.json", "vocab.bpe", "vocab.json", "merges.txt", "tokenizer_config.json", ".lock"}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What is said about arguments that are wrong."""
    assert main(["vocabulary", *args]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_a_vocabulary_is_written(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main(["vocabulary", "text.txt", "--size", "280", "-o", "mine"]) == 0
    tokenizer = Tokenizer.load("mine")
    expected = from_merges(learn(count_words([TEXT]), 279))
    assert (tokenizer.encoder, [*tokenizer.ranks]) == (expected.encoder, expected.merges)
    assert {file.name for file in Path("mine").iterdir()} == FILES
    for here, there in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        assert Path("mine", here).read_bytes() == Path("mine", there).read_bytes()
    ratio = len(TEXT) / len(tokenizer.encode(TEXT))
    assert (
        capsys.readouterr().out
        == f"280 tokens are in mine; one stands for {ratio:.2f} bytes of this text, on average\n"
    )
    words = split(TEXT)
    assert f"{len(words)} words, {len({*words})} of them different" in caplog.text


def test_several_files_and_standard_input_are_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("one.txt").write_text("a cat")
    Path("two.txt").write_text(f"a hat{END_OF_TEXT}a bat")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a rat")))
    assert main(["vocabulary", "one.txt", "-", "two.txt", "--size", "258", "-o", "mine"]) == 0
    assert [*Tokenizer.load("mine").ranks] == ["a t"]  # in all four, as no other pair


def test_the_command_runs_as_a_process_and_a_new_model_takes_its_vocabulary() -> None:
    shape = "--n-layer 1 --n-embd 8 --n-head 2 --n-ctx 16"
    for line in (
        "vocabulary text.txt --size 270 -o mine",
        f"train text.txt --vocabulary mine {shape} --batch-size 1 --steps 1 -o model",
    ):
        command = [sys.executable, "-m", "numpy_gpt2", *line.split()]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert Tokenizer.load("model").encoder == Tokenizer.load("mine").encoder


def test_a_size_that_the_text_does_not_give_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.txt").write_text("ab ab")
    said = refused(capsys, "small.txt", "-o", "mine")
    assert "with 259 tokens, each word of the text is one: ask for --size 259, or give more text" in said
    assert not Path("mine").exists()
    assert main(["vocabulary", "small.txt", "--size", "259", "-o", "mine"]) == 0
    assert [len(Tokenizer.load("mine").encode(word)) for word in ("ab", " ab")] == [1, 1]


@pytest.mark.parametrize("size", ["256", "0", "-1"])
def test_a_size_without_room_for_the_bytes_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "text.txt", "--size", size, "-o", "mine").endswith(
        f"--size must be a whole number, 257 or more, not {size}"
    )


def test_the_smallest_vocabulary_is_the_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vocabulary", "text.txt", "--size", "257", "-o", "mine"]) == 0
    assert "one stands for 1.00 bytes" in capsys.readouterr().out
    assert Tokenizer.load("mine").n_vocab == 257


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file bad.txt"),
        (b"", "bad.txt is empty"),
        (b"a\xff", "bad.txt is not text in UTF-8"),
    ],
)
def test_files_that_are_no_text_are_refused(
    content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("bad.txt").write_bytes(content)
    assert message in refused(capsys, "text.txt", "bad.txt", "-o", "mine")
    assert not Path("mine").exists()


def test_bytes_on_standard_input_that_are_no_text_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff b")))
    assert "the text is not UTF-8: it holds the byte 0xFF" in refused(capsys, "-", "--size", "258", "-o", "mine")
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    "files",
    [
        ["encoder.json", "vocab.bpe"],
        ["vocab.bpe"],
        ["merges.txt"],
        ["tokenizer.json"],
        ["model.safetensors"],
        ["checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"],
    ],
    ids=" ".join,
)
def test_a_folder_with_a_vocabulary_or_a_model_stays_as_it_is(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before the text is read."""
    Path("mine").mkdir()
    for name in files:
        Path("mine", name).write_text('model_checkpoint_path: "model.ckpt"')
    before = {name: Path("mine", name).read_bytes() for name in files}
    said = refused(capsys, "there is no such text", "--size", "270", "-o", "mine")
    assert "mine holds a" in said
    assert said.endswith("already: name another folder")
    assert {file.name: file.read_bytes() for file in Path("mine").iterdir() if file.name != ".lock"} == before


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("tiny", "'tiny' is the name of a model: write the folder as './tiny'"),
        ("text.txt", "text.txt is a file, not a folder"),
        ("", "name a folder to save to"),
    ],
)
def test_names_that_no_folder_should_have_are_refused(
    output: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "text.txt", "--size", "270", "-o", output)
    assert Path("text.txt").read_text() == TEXT


@pytest.mark.parametrize("text", [END_OF_TEXT, END_OF_TEXT * 3])
def test_a_text_without_words_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ends.txt").write_text(text)
    said = refused(capsys, "ends.txt", "--size", "257", "-o", "mine")
    assert "there is nothing to learn from: no text has anything but <|endoftext|>" in said
    assert not Path("mine").exists()


def test_bytes_are_counted_and_not_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_text("é é é", encoding="utf-8")
    assert main(["vocabulary", "words.txt", "--size", "259", "-o", "a/b"]) == 0
    assert "one stands for 2.67 bytes" in capsys.readouterr().out  # "é", " é", " é": 8 bytes in 3 tokens
    assert Tokenizer.load("a/b").n_vocab == 259


def test_the_default_is_4096_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ask for --size 3" in refused(capsys, "text.txt", "-o", "mine")
    parser = whole_parser()
    assert parser.parse_args(["vocabulary", "text.txt", "-o", "mine"]).size == 4096


def test_standard_input_is_named_and_read_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "standard input can be read only once: give - once" in refused(capsys, "-", "-", "-o", "mine")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert refused(capsys, "-", "-o", "mine").endswith("standard input is empty")


def test_two_at_once_do_not_mix_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    with locked(Path("mine")):
        said = refused(capsys, "text.txt", "--size", "270", "-o", "mine")
    assert said.endswith("another process is writing in mine: name another folder")


def test_whatever_step_fails_there_is_a_whole_vocabulary_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = set()
    for step in itertools.count():
        folder, calls = Path(f"mine{step}"), itertools.count()

        def fail(step: int = step, calls: Iterator[int] = calls) -> None:
            if next(calls) == step:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            steps_patched(patch, fail)
            status = main(["vocabulary", "text.txt", "--size", "270", "-o", str(folder)])
        is_there = bool(find_vocabulary(current_folder(folder)))
        outcomes.add((status, is_there))
        if is_there:
            assert Tokenizer.load(folder).n_vocab == 270
        if next(calls) <= step:  # nothing failed
            break
    assert outcomes == {(1, False), (1, True), (0, True)}
