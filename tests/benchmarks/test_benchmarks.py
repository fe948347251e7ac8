"""The benchmark: the programs compute the same, the figures are what their descriptions say, and it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import numpy_gpt2
from numpy_gpt2 import HParams

pytest.importorskip("benchmarks", reason="the benchmark is only in the source tree")
from benchmarks import __main__ as benchmark
from benchmarks import cold, functions, peers, tokenizers
from benchmarks.__main__ import BETTER, Task
from benchmarks.worker import Worker

SMALL = HParams(n_vocab=50257, n_ctx=1024, n_embd=12, n_head=3, n_layer=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    numpy_gpt2.save(numpy_gpt2.init(SMALL, seed=1), folder / "small")
    return folder


@pytest.mark.parametrize("name", ["transformers", "tutorial"])
def test_all_programs_generate_the_same_tokens(name: str, folder: Path) -> None:
    for package in peers.NEEDS[name]:
        pytest.importorskip(package)
    ours = peers.numpy_gpt2()(folder / "small")
    theirs = peers.PEERS[name]()(folder / "small")
    prompts = [[464, 2068, 7586], [1, 2, 3]]
    for n in 1, 4:
        moments, tokens = theirs(prompts, n)
        our_moments, our_tokens = ours(prompts, n)
        assert tokens == our_tokens
        assert [len(ids) for ids in tokens] == [n, n]
        assert len(moments) == len(our_moments) == n + 1
        assert moments == sorted(moments)


@pytest.mark.parametrize("name", ["tiktoken", "tokenizers", "published"])
def test_the_tokenizers_agree(name: str) -> None:
    if name != "published":
        pytest.importorskip(name)
    for text in tokenizers.texts(None).values():
        part = text[:4000]
        assert tokenizers.PEERS[name]()(part) == tokenizers.numpy_gpt2()(part)


class TestFigures:
    def test_a_prompt_is_measured_up_to_its_first_token(self) -> None:
        task = Task("", n_batch=1, n_prompt=9, unit="ms")
        assert task.figure(task.seconds([10.0, 10.25])) == 250

    def test_tokens_are_measured_from_one_to_the_next(self) -> None:
        moments = [0.0, 100.0, 100.5, 101.0, 103.0]
        assert Task("", 1, 9, "ms/token").seconds(moments) == 0.5
        assert Task("", 4, 9, "tokens/s").figure(0.5) == 8

    def test_a_factor_above_1_means_better_in_every_unit(self) -> None:
        task = Task("", 4, 9, "tokens/s")
        row = benchmark.compare("tokens/s", {"numpy_gpt2": [1.0, 2.0, 4.0], "slow": [3.0, 6.0, 2.0]}, task.figure)
        assert row["numpy_gpt2"] == {"median": 2.0, "low": 1.0, "high": 4.0}
        assert row["slow"][BETTER] == 3  # the median of 3, 3 and 0.5

    def test_a_token_is_limited_by_reading_the_weights_and_the_past(self) -> None:
        hparams = benchmark.SIZES["124M"]
        read = 4 * (124_439_808 - 1024 * 768)
        assert Task("", 1, 1, "ms/token").least_seconds(hparams, 1, 1e9) == pytest.approx(read)
        with_past = Task("", 16, 1001, "ms/token").least_seconds(hparams, 1, 1e9)
        assert with_past == pytest.approx(read + 16 * 4 * 2 * 12 * 768 * 1000)

    def test_a_long_prompt_is_limited_by_arithmetic(self) -> None:
        hparams = HParams(n_vocab=7, n_ctx=9, n_embd=2, n_head=1, n_layer=1)
        least = Task("", 1, 3, "ms").least_seconds(hparams, 1e9, 1)
        between = (12 * 2 * 2 + 13 * 2) + 2 * 2  # parameters of the block and of the last layer norm
        assert least == 2 * (3 * between + 7 * 2 + 2 * 2 * (1 + 2 + 3))

    def test_cells(self) -> None:
        assert benchmark.show({"median": 12.345, "low": 1.0, "high": 123.4, BETTER: 2.0}) == "12.3 (1–123) **2.00×**"
        assert benchmark.show(0.785) == "78%"
        assert benchmark.show(None) == ""


def test_it_prints_tables_and_writes_all_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    options = ["--sizes", "small", "--threads", "1", "--peers", "tutorial", "--rounds", "2", "--models", str(folder)]
    tasks = [task for task in benchmark.TASKS if task != "memory" or sys.platform == "linux"]
    assert benchmark.main([*options, "--json", str(file), "--tasks", *tasks], {"small": SMALL}) == 0
    figures = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert figures["machine"]["threads"] == "1"
    for title in "small", "tokenizer":
        for name, row in figures[title].items():
            assert (f"The machine's {name}: " if "limit" in row else f"| {name} | {row['unit']} |") in printed
    row = figures["small"]["one token, at a context of 256"]
    assert row["tutorial"][BETTER] == pytest.approx(row["tutorial"]["median"] / row["numpy_gpt2"]["median"], rel=9)
    assert {"loading", "cold start, to the first token", "a batch of 16"} <= figures["small"].keys()


def test_the_cold_start_ends_with_the_first_token(folder: Path) -> None:
    command = cold.commands(folder / "small")["numpy_gpt2"]
    _, printed = cold.first_token("ours", command, threads=1)
    assert printed == numpy_gpt2.load(folder / "small").generate(cold.PROMPT, 1, temperature=0) + "\n"
    with pytest.raises(RuntimeError, match="cold start of ours could not be measured: ValueError: no"):
        cold.first_token("ours", [command[0], "-c", "raise ValueError('no')"], threads=1)


class TestMistakes:
    @pytest.mark.parametrize("options", [["--rounds", "0"], ["--threads", "x"], ["--sizes", "125M"], ["--tasks", "no"]])
    def test_options(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            benchmark.main(options)
        assert options[0] in capsys.readouterr().err

    def test_a_corpus_that_does_not_exist(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert benchmark.main(["--corpus", str(tmp_path / "no.txt"), "--json", str(tmp_path / "x.json")]) == 1
        assert "no.txt" in capsys.readouterr().err

    def test_a_worker_without_a_model(self, tmp_path: Path) -> None:
        with Worker("numpy_gpt2", tmp_path, 1) as worker, pytest.raises(RuntimeError, match="its process has ended"):
            worker.ask("generate", [[1]], 1)

    def test_a_question_that_causes_an_error(self, folder: Path) -> None:
        with Worker("numpy_gpt2", folder / "small", 1) as worker:
            with pytest.raises(RuntimeError, match="numpy_gpt2 could not be measured: ValueError: .*50257"):
                worker.ask("generate", [[50257]], 1)
            assert len(worker.ask("generate", [[50256]], 2)) == 3


def test_the_times_of_functions_with_the_same_name_are_added() -> None:
    def work() -> Any:
        return [numpy_gpt2.HParams(1, 1, 1, 1, 1) for _ in range(3)], [sorted([1]) for _ in range(2)]

    times = functions.own_times(work)
    assert sum(calls for name, (_, calls) in times.items() if "sorted" in name) == 2
    assert [*times.values()] == sorted(times.values(), key=lambda value: -value[0])


def test_functions_of_the_package_are_named_by_module() -> None:
    model = numpy_gpt2.init(SMALL._replace(n_vocab=300))
    times = functions.own_times(lambda: model.generate([1, 2, 3], 2, temperature=0, return_details=True))
    for name in ("layers.attention", "machine.products.product", "decoding.prefill.read", "generation.generate_batch"):
        assert name in times
    assert times["layers.block"][1] == 2 * SMALL.n_layer
