"""The benchmark: the programs compute the same, the figures are what their descriptions say, and it runs."""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import random_model
from threadpoolctl import threadpool_limits

import numpy_gpt2
from numpy_gpt2 import HParams

pytest.importorskip("benchmarks", reason="the benchmark is only in the source tree")
from benchmarks import __main__ as benchmark
from benchmarks import beside, cold, functions, page, peers, speculation, tokenizers, training
from benchmarks.__main__ import BETTER, Task
from benchmarks.worker import Worker
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.server import PageServer
from numpy_gpt2.tokenizer import Tokenizer

SMALL = HParams(n_vocab=50257, n_ctx=1024, n_embd=12, n_head=3, n_layer=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    numpy_gpt2.save(numpy_gpt2.init(SMALL, seed=1), folder / "small")
    numpy_gpt2.save(numpy_gpt2.init(SMALL, seed=2), folder / "small-assistant")
    return folder


@pytest.fixture(scope="module")
def varied(folder: Path) -> Path:
    """The folder of a model whose likeliest tokens differ from place to place."""
    model = random_model(SMALL, "float32")
    model.tokenizer = Tokenizer.gpt2()
    numpy_gpt2.save(model, folder / "varied")
    return folder / "varied"


@pytest.fixture(scope="module")
def ending(folder: Path) -> Path:
    """The folder of a model that would end every text at once."""
    model = numpy_gpt2.init(SMALL, seed=1)
    model.params.wte[50256] *= 100
    model.params.ln_f.b[:] = model.params.wte[50256]
    numpy_gpt2.save(model, folder / "ending")
    return folder / "ending"


def load_peer(name: str, folder: Path) -> peers.Generate:
    for package in peers.NEEDS[name]:
        pytest.importorskip(package)
    if name in peers.COMPUTE_TYPES and not peers.converted(folder, peers.COMPUTE_TYPES[name]).exists():
        peers.convert(folder, peers.COMPUTE_TYPES[name])
    return peers.PEERS[name]()(folder)


@pytest.mark.parametrize("name", ["transformers", "ctranslate2", "tutorial"])
def test_all_programs_generate_the_same_tokens(name: str, varied: Path) -> None:
    ours = load_peer("numpy_gpt2", varied)
    theirs = load_peer(name, varied)
    prompts = [[464, 2068, 7586], [1, 2, 3]]
    for n in 1, 4:
        moments, tokens = theirs(prompts, n)
        our_moments, our_tokens = ours(prompts, n)
        assert tokens == our_tokens
        assert [len(ids) for ids in tokens] == [n, n]
        assert len(moments) == len(our_moments) == n + 1
        assert moments == sorted(moments)


def test_both_programs_make_the_same_steps(varied: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    ours, theirs = (program(varied) for program in training.PROGRAMS.values())
    for texts in ([[464, 2068, 7586], [1, 2, 3]], [[5, 6, 7], [8, 9, 10]], [[464, 2068, 7586], [1, 2, 3]]):
        assert ours(texts)[1] == pytest.approx(theirs(texts)[1], abs=1e-4)


@pytest.mark.parametrize("name", peers.PEERS)
def test_no_program_ends_a_text(name: str, ending: Path) -> None:
    moments, tokens = load_peer(name, ending)([[464, 2068], [1, 2]], 3)
    assert tokens == [[50256] * 3] * 2
    assert len(moments) == 4


@pytest.mark.parametrize("name", ["tiktoken", "tokenizers", "published"])
def test_the_tokenizers_agree(name: str) -> None:
    if name != "published":
        pytest.importorskip(name)
    for text in tokenizers.texts(None).values():
        part = text[:4000]
        assert tokenizers.PEERS[name]()(part) == tokenizers.numpy_gpt2()(part)


class TestSpeculation:
    TEXT = "".join(f"{number} words of a tale that goes on, and on. " for number in range(1000))

    def test_every_text_follows_its_prompt(self) -> None:
        decode = Tokenizer.gpt2().decode
        copy, repeated, prose, assisted = speculation.tasks(self.TEXT, random.Random(0)).values()
        assert decode(prose[0] + prose[1]) in self.TEXT
        assert prose[:2] == assisted[:2]
        assert repeated[0] == repeated[1] == repeated[0][:25] * 8
        assert copy[0][:-1] != copy[1]
        given, written = decode(copy[0]).strip().split(" "), decode(copy[1]).split(" ")
        changes = [i for i, words in enumerate(zip(given, written, strict=True)) if words[0] != words[1]]
        assert 1 <= len(changes) <= len(given) / 25 + 1

    def test_drafts_from_the_text_are_accepted(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        text = [1, 2, 3, 4, 5] * 10
        drafted, accepted = self.count(folder, text, text, "lookup", caplog)
        assert drafted == accepted > 40

    def test_as_many_drafts_of_the_assistant_are_right_as_it_says(
        self, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        length = "numpy_gpt2.decoding.speculation.best_length"
        monkeypatch.setattr(length, lambda chances, cost: min(1, len(chances)))
        drafted, accepted = self.count(folder, [1, 2], random.Random(0).choices(range(9), k=500), "assistant", caplog)
        assert accepted / drafted == pytest.approx(speculation.AGREEMENT, abs=0.1)

    @staticmethod
    def count(
        folder: Path, prompt: list[int], text: list[int], drafter: str, caplog: pytest.LogCaptureFixture
    ) -> tuple[int, int]:
        """Writes a text, and returns how many of its tokens were drafted, and how many of these accepted."""
        with caplog.at_level(logging.DEBUG, "numpy_gpt2"):
            moments = speculation.load(folder / "small")(prompt, text, drafter)
        assert len(moments) == len(text)
        assert moments == sorted(moments)
        drafted, accepted = next(record.args for record in caplog.records if "drafted" in record.msg)  # type: ignore[misc]
        return drafted, accepted  # type: ignore[return-value]

    def test_without_a_drafter_the_same_text_is_written(self, folder: Path) -> None:
        assert len(speculation.load(folder / "small")([1, 2], [3, 3, 7, 50256], None)) == 4

    def test_the_corpus_is_too_short(self, tmp_path: Path) -> None:
        (tmp_path / "short.txt").write_text("a b c")
        with pytest.raises(RuntimeError, match="short.txt is too short"):
            speculation.tales(tmp_path / "short.txt")
        with pytest.raises(RuntimeError, match="no natural text"):
            speculation.tasks("-" * 4000, random.Random(0))

    def test_without_a_corpus_tiny_writes_tales(self) -> None:
        with threadpool_limits(1):  # more are slower for a small model
            assert len(speculation.tales(None)) > speculation.N_CHARACTERS


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

    def test_a_program_that_may_come_to_other_tokens_is_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        row = benchmark.compare("ms", {"numpy_gpt2": [1.0], "ctranslate2-int8": [1.0]})
        benchmark.print_table("124M", {"a prompt": row})
        assert "| ctranslate2-int8 (not exact) |" in capsys.readouterr().out

    def test_two_machines_side_by_side(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        def row(ours: float, theirs: float) -> dict[str, Any]:
            return benchmark.compare("ms", {"numpy_gpt2": [ours], "transformers": [theirs]})

        for name, tasks in {"A": {"x": row(2, 3), "y": row(5, 5)}, "B": {"x": row(1, 4)}}.items():
            limits = {"bandwidth": {"unit": "GB/s", "limit": {"median": 9, "low": 9, "high": 9}}}
            figures = {"machine": {"processor": name}, "rounds": 1, "124M": {**limits, **tasks}}
            (tmp_path / f"{name}.json").write_text(json.dumps(figures))
        beside.main([str(tmp_path / "A.json"), str(tmp_path / "B.json")])
        printed = capsys.readouterr().out
        assert "| | unit | numpy_gpt2, A | numpy_gpt2, B | transformers, A | transformers, B |" in printed
        assert "| bandwidth | GB/s | 9 | 9 |  |  |" in printed
        assert "| x | ms | 2 | 1 | 3 **1.50×** | 4 **4.00×** |" in printed
        assert "| y | ms | 5 |  | 5 **1.00×** |  |" in printed


def test_it_prints_tables_and_writes_all_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speculation, "tales", lambda corpus: TestSpeculation.TEXT)
    file = tmp_path / "figures.json"
    options = ["--sizes", "small", "--threads", "1", "--peers", "tutorial", "--rounds", "2", "--models", str(folder)]
    tasks = [task for task in benchmark.TASKS if task != "memory" or sys.platform == "linux"]
    assert benchmark.main([*options, "--json", str(file), "--tasks", *tasks], {"small": SMALL}) == 0
    figures = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert figures["machine"]["threads"] == "1"
    for title in "small", "small, speculation", "tiny, training", "small, training", "tokenizer":
        for name, row in figures[title].items():
            assert (f"The machine's {name}: " if "limit" in row else f"| {name} | {row['unit']} |") in printed
    row = figures["small"]["one token, at a context of 256"]
    assert row["tutorial"][BETTER] == pytest.approx(row["tutorial"]["median"] / row["numpy_gpt2"]["median"], rel=9)
    assert figures["small, speculation"]["prose, lookup"]["without drafts"][BETTER] > 0
    assert [*figures["small, training"]] == ["a step, 4 x 256 tokens", "a step, 1 x 256 tokens"]
    assert {"loading", "cold start, to the first token", "a batch of 16"} <= figures["small"].keys()


def test_the_cold_start_ends_with_the_first_token(folder: Path) -> None:
    command = cold.commands(folder / "small")["numpy_gpt2"]
    _, printed = cold.first_token("ours", command, threads=1)
    assert printed == numpy_gpt2.load(folder / "small").generate(cold.PROMPT, 1, temperature=0) + "\n"
    with pytest.raises(RuntimeError, match="cold start of ours could not be measured: ValueError: no"):
        cold.first_token("ours", [command[0], "-c", "raise ValueError('no')"], threads=1)


@pytest.mark.parametrize("name", ["ctranslate2", "ctranslate2-int8"])
def test_a_converted_model_starts_cold(name: str, varied: Path) -> None:
    load_peer(name, varied)
    _, printed = cold.first_token(name, cold.commands(varied)[name], threads=1)
    assert name in peers.INEXACT or printed == numpy_gpt2.load(varied).generate(cold.PROMPT, 1, temperature=0) + "\n"


def test_a_program_that_is_not_installed_is_left_out_with_a_word(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(peers.NEEDS, "ctranslate2", ("a_package_that_nobody_has",))
    options = ["--sizes", "small", "--peers", "ctranslate2", "--tasks", "load", "--rounds", "1"]
    files = ["--models", str(folder), "--json", str(tmp_path / "figures.json")]
    assert benchmark.main([*options, *files], {"small": SMALL}) == 0
    printed = capsys.readouterr()
    assert "not measured, since they are not installed: ctranslate2" in printed.err
    assert "ctranslate2" not in printed.out.split("###")[1]


def test_what_is_not_for_a_gpu_is_left_out_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    args = benchmark.parser(benchmark.SIZES).parse_args([])
    benchmark.leave_out_what_needs_the_processor(args)
    assert args.tasks == benchmark.ON_GPU
    assert args.peers == ["transformers", "tutorial"]
    words = "not measured on a GPU: cold, ctranslate2, ctranslate2-int8, memory, speculation, tokenizer, training\n"
    assert capsys.readouterr().err == words


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


def test_the_page_writes_as_many_tokens_as_generate() -> None:
    model = random_model(SMALL, "float32")
    model.tokenizer = Tokenizer.gpt2()
    with PageServer(Answers(model).answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert len(page.moments_of_page(server.port, 5)) == len(page.moments_of_generate(model, 5)) == 5
        server.shutdown()
    for pair in page.in_turns(model, n_tokens=4, n_rounds=2):
        assert min(pair) > 0


def test_a_ratio_is_the_median_of_ratios() -> None:
    shown = page.show([(1, 2), (2, 6), (4, 4)], 1000, "ms", ("generate", "the page"))
    assert shown == "generate 2000.00 ms, the page 4000.00 ms; the page takes 2.000 times as long"
