"""The benchmark: that what it compares does the same, and that it runs. No figure is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import numpy_gpt2
from numpy_gpt2 import HParams

pytest.importorskip("benchmarks", reason="the benchmark is in the source tree only")
from benchmarks import __main__ as benchmark
from benchmarks import cold, peers, tokenizers

SMALL = HParams(n_vocab=50257, n_ctx=1024, n_embd=12, n_head=3, n_layer=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    numpy_gpt2.save(numpy_gpt2.init(SMALL, seed=1), folder / "small")
    return folder


@pytest.mark.parametrize("name", ["transformers", "tutorial"])
def test_the_peers_continue_as_we_do(name: str, folder: Path) -> None:
    if name == "transformers":
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    ours = peers.PEERS["numpy_gpt2"](folder / "small")
    theirs = peers.PEERS[name](folder / "small")
    prompts = [[464, 2068, 7586], [1, 2, 3]]
    for n in 1, 4:
        moments, tokens = theirs(prompts, n)
        assert tokens == ours(prompts, n)[1]
        assert len(moments) == len(ours(prompts, n)[0]) == n + 1
        assert moments == sorted(moments)


@pytest.mark.parametrize("name", ["tiktoken", "tokenizers", "published"])
def test_the_tokenizers_agree(name: str) -> None:
    if name != "published":
        pytest.importorskip(name)
    for text in tokenizers.texts(None).values():
        part = text[:20_000]
        assert tokenizers.PEERS[name]()(part) == tokenizers.numpy_gpt2()(part)


def test_it_prints_a_table_and_writes_all_figures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "SIZES", {"small": SMALL})
    file = tmp_path / "figures.json"
    tasks = ["tokens", "prompts", "batches", "memory", "load"]
    options = ["--sizes", "small", "--threads", "1", "--peers", "tutorial", "--rounds", "2", "--tasks", *tasks]
    benchmark.main([*options, "--models", str(folder), "--json", str(file)])
    figures = json.loads(file.read_text())
    assert figures["machine"]["threads"] == "1"
    row = figures["small"]["one token, at a context of 256"]
    assert row["unit"] == "ms/token"
    assert 0 < row["numpy_gpt2"]["low"] <= row["numpy_gpt2"]["median"] <= row["numpy_gpt2"]["high"]
    assert row["tutorial"]["ours is better by"] > 0
    assert row["share"] > 0
    printed = capsys.readouterr().out
    for name in figures["small"]:
        assert name == "limits" or f"| {name} |" in printed
    assert "loading" in figures["small"]


def test_a_cold_start_is_measured_to_the_first_output(folder: Path) -> None:
    command = cold.commands(folder / "small")["numpy_gpt2"]
    assert cold.first_output(command, threads=1) > 0
    with pytest.raises(RuntimeError, match="nothing came"):
        cold.first_output([command[0], "-c", ""], threads=1)
