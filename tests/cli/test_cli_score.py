"""`numpy-gpt2 score`, run as a process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tqdm

from numpy_gpt2.cli import score
from numpy_gpt2.evaluation import scoring
from numpy_gpt2.gpt2 import GPT2

TEXT = "Once upon a time there was a king who had a daughter.\n"


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def run(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "numpy_gpt2", "score", *args]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)


def numbers(output: str) -> dict[str, float]:
    """The figures of the last lines."""
    lines = output.splitlines()[-4:]
    return {line[:13].strip(): float(line[13:].split()[0]) for line in lines}


def test_the_figures_are_those_of_the_library(tiny: GPT2, tmp_path: Path) -> None:
    assert tiny.tokenizer
    (tmp_path / "story.txt").write_text(TEXT * 40)
    ids = tiny.tokenizer.encode(TEXT * 40)
    assert len(ids) > 2 * 256
    for stride in (128, 255):
        result = run("story.txt", "--stride", str(stride), "--model", "tiny")
        assert (result.returncode, result.stderr) == (0, "")
        loss = tiny.loss(ids, stride=stride)
        n_bytes = len(tiny.tokenizer.decode_bytes(ids[1:]))
        expected = {
            "tokens scored": len(ids) - 1,
            "cross-entropy": loss,
            "perplexity": tiny.perplexity(ids, stride),
            "bits per byte": loss * (len(ids) - 1) / n_bytes / 0.6931471805599453,
        }
        assert numbers(result.stdout) == pytest.approx(expected, abs=1e-3)
        assert len(result.stdout.splitlines()) == 4
    assert run("story.txt", "--model", "tiny").stdout == run("story.txt", "--stride", "128", "--model", "tiny").stdout


def test_bits_per_byte_counts_only_the_bytes_that_are_scored(tiny: GPT2) -> None:
    """The bytes of the first token do not count."""
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode("née née née née")
    bits = tiny.loss(ids) * (len(ids) - 1) / 0.6931471805599453
    result = run("-", input="née née née née")
    assert numbers(result.stdout)["bits per byte"] == pytest.approx(
        bits / len(tiny.tokenizer.decode_bytes(ids[1:])), abs=1e-4
    )


def test_a_short_text_is_shown_token_by_token(tiny: GPT2) -> None:
    assert tiny.tokenizer
    result = run("-", input="The king was very angry.")
    head, first, *tokens = result.stdout.split("\n\n")[0].splitlines()
    assert head.split() == ["probability", "rank", "token"]
    assert first.split() == ["-", "-", "'The'"]
    ids = tiny.tokenizer.encode("The king was very angry.")
    logits = tiny.logits(ids).astype("float64")
    for line, before, id in zip(tokens, logits[:-1], ids[1:], strict=True):
        probability, rank, token = line.split(maxsplit=2)
        assert float(probability) == pytest.approx(1 / sum(2.718281828459045 ** (before - before[id])), abs=1e-5)
        assert int(rank) == 1 + sum(before > before[id])
        assert token == repr(tiny.tokenizer.decode([id]))


def test_the_text_may_be_given_as_an_option_or_on_standard_input() -> None:
    text = "The king was very angry."
    results = [run("--text", text), run(input=text), run("-", input=text)]
    assert [result.returncode for result in results] == [0, 0, 0]
    assert len({result.stdout for result in results}) == 1
    assert run("story.txt", "--text", text).returncode == 2


def test_as_json(tiny: GPT2) -> None:
    assert tiny.tokenizer
    text = "The king was very angry, née."
    ids = tiny.tokenizer.encode(text)
    figures = json.loads(run("--text", text, "--json").stdout)
    n_bytes = len(tiny.tokenizer.decode_bytes(ids[1:]))
    assert figures == pytest.approx(
        {
            "tokens": len(ids) - 1,
            "cross_entropy": tiny.loss(ids),
            "perplexity": tiny.perplexity(ids),
            "bits_per_byte": tiny.loss(ids) * (len(ids) - 1) / n_bytes / 0.6931471805599453,
        },
        rel=1e-5,
    )
    first, *tokens, last = map(json.loads, run("--text", text, "--json", "--tokens").stdout.splitlines())
    assert last == figures
    assert first == {"id": ids[0], "token": "The", "log_probability": None, "rank": None}
    scores = scoring.join(tiny.score(ids))
    assert [token["id"] for token in tokens] == ids[1:]
    assert [token["token"] for token in tokens] == [tiny.tokenizer.decode([id]) for id in ids[1:]]
    np.testing.assert_allclose([token["log_probability"] for token in tokens], scores.log_probabilities[0], rtol=1e-4)
    assert [token["rank"] for token in tokens] == scores.ranks[0].tolist()


def test_quiet() -> None:
    assert "using tiny" in run("--text", "The king was").stderr
    assert run("--text", "The king was", "--quiet").stderr == ""


def test_a_long_text_is_shown_token_by_token_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(TEXT * 10)
    plain, shown = (run("story.txt", *args).stdout for args in ([], ["--tokens"]))
    assert len(plain.splitlines()) == 4
    assert shown.endswith("\n\n" + plain)
    assert len(shown.splitlines()) == numbers(shown)["tokens scored"] + 7


@pytest.mark.parametrize(
    ("args", "text", "parts"),
    [
        (["nowhere.txt"], "", ["there is no file nowhere.txt; --text scores a text itself"]),
        (["."], "", [".: Is a directory"]),
        (["-"], "", ["standard input is too short"]),
        (["-"], "a", ["standard input is too short"]),
        (["-", "--stride", "256"], "a b c", ["stride must be a whole number, 1 to 255, not 256"]),
        (["-", "--stride", "x"], "a b c", ["--stride", "'x'"]),
        (["-", "--threads", "-1"], "a b c", ["--threads must be a whole number, 1 or more, not -1"]),
        (["-", "--model", "125M"], "a b c", ["there is no model '125M'"]),
        ([], "", ["standard input is too short"]),
        (["story.txt", "--text", "a"], "", ["--text"]),
    ],
    ids=str,
)
def test_bad_input_is_reported_in_one_line(args: list[str], text: str, parts: list[str]) -> None:
    result = run(*args, input=text)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


def test_encoding_shows_its_progress(tiny: GPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    def progress_bar(total: int, unit: str) -> Any:
        bars.append(tqdm.tqdm(total=total, unit=unit, file=io.StringIO()))
        return bars[-1]

    monkeypatch.setattr(score, "progress_bar", progress_bar)
    text = TEXT * 2000 + "née"
    assert tiny.tokenizer
    ids, n_bytes = score.encode(text, tiny.tokenizer)
    assert ids.tolist() == tiny.tokenizer.encode(text)
    assert n_bytes == len(text.encode())
    (bar,) = bars
    assert (bar.n, bar.total, bar.unit, bar.desc) == (len(text), len(text), "character", "encoding: ")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_bytes(b"caf\xe9")
    assert "story.txt is not text in UTF-8" in run("story.txt").stderr


def test_the_default_model_is_announced() -> None:
    assert "using tiny, a small model" in run("-", input=TEXT).stderr
    assert run("-", "--model", "tiny", input=TEXT).stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(TEXT)
    os.mkfifo(tmp_path / "slow")
    with (
        subprocess.Popen(
            [sys.executable, "-m", "numpy_gpt2", "score", "slow"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        ) as process,
        (tmp_path / "slow").open("w"),
    ):  # opening the pipe waits until the command reads it
        process.send_signal(signal.SIGINT)
        output = process.communicate()
    assert (process.returncode, output) == (130, (b"", b""))


@pytest.mark.parametrize("text", ["\ufeffThe king\r\nlived\r\n", "The king\r\n\nlived"])
def test_every_character_of_a_file_counts(tiny: GPT2, tmp_path: Path, text: str) -> None:
    """Also a byte order mark, and carriage returns."""
    file = tmp_path / "file.txt"
    file.write_bytes(text.encode())
    expected = main_json("--text", text)
    assert expected["perplexity"] == pytest.approx(tiny.perplexity(text))
    assert main_json(str(file)) == expected
    with file.open("rb") as opened:
        args = [sys.executable, "-m", "numpy_gpt2", "score", "-", "--json", "--model", "tiny"]
        result = subprocess.run(args, stdin=opened, capture_output=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == expected


def main_json(*args: str) -> dict[str, float]:
    """The figures that `score --json` prints."""
    command = [sys.executable, "-m", "numpy_gpt2", "score", *args, "--json", "--model", "tiny"]
    result = subprocess.run(command, capture_output=True, check=True)
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures
