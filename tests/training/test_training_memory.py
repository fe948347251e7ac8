"""The estimate of memory: what makes it larger and smaller, and what the command does when there is too little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from numpy_gpt2.cli import runs
from numpy_gpt2.params import HParams, count_params
from numpy_gpt2.training.loop import Options
from numpy_gpt2.training.memory import estimate

HPARAMS = HParams(n_vocab=5000, n_ctx=128, n_embd=96, n_head=6, n_layer=5)
OPTIONS = Options(batch_size=8, window=96)  # nearly the context: evaluation, which takes all of it, needs less
TEXT = runs.Text(np.zeros(100, np.int32), np.zeros(10_000, np.int32))
GIB = 2**30


def bytes_of(
    n_threads: int = 2, before: int = 0, hparams: HParams = HPARAMS, n_held_out: int = 10_000, **options: Any
) -> int:
    return estimate(hparams, replace(OPTIONS, **options), n_threads, before, n_held_out)


class TestEstimate:
    @pytest.mark.parametrize("n_threads", [1, 2, 4])
    @pytest.mark.parametrize("options", [{}, {"sparing": True}, {"train_last": 2}, {"lora_rank": 4}], ids=str)
    def test_it_grows_with_the_threads_the_window_the_blocks_the_width_and_the_vocabulary(
        self, n_threads: int, options: dict[str, Any]
    ) -> None:
        least = bytes_of(n_threads, **options)
        assert bytes_of(n_threads + 1, **options) > least
        assert bytes_of(n_threads, **{**options, "window": 128}) > least
        for larger in ({"n_layer": 6}, {"n_embd": 192}, {"n_vocab": 20_000}, {"n_ctx": 256}):
            assert bytes_of(n_threads, hparams=HPARAMS._replace(**larger), **options) > least

    def test_without_a_window_it_is_that_of_the_context_but_no_more_than_256(self) -> None:
        for n_ctx, window in ((128, 128), (256, 256), (512, 256)):
            hparams = HPARAMS._replace(n_ctx=n_ctx)
            assert bytes_of(window=0, hparams=hparams) == bytes_of(window=window, hparams=hparams)

    def test_evaluation_reads_all_of_a_context_whatever_the_window(self) -> None:
        hparams = HPARAMS._replace(n_ctx=4096)
        weights_of_attention = 4 * hparams.n_head * hparams.n_ctx**2
        assert bytes_of(1, hparams=hparams, window=1) > 3 * weights_of_attention
        assert bytes_of(1, hparams=hparams, window=1, n_held_out=100) < weights_of_attention  # unless there is less
        assert bytes_of(1, hparams=hparams, window=1, n_held_out=0) < weights_of_attention

    def test_parts_of_the_model_take_less_than_the_whole(self) -> None:
        assert bytes_of(sparing=True) < bytes_of()
        by_blocks = [bytes_of(train_last=n) for n in (1, 2, 3, 4, 5)]
        assert by_blocks == sorted(by_blocks)
        assert len({*by_blocks}) == 5
        assert by_blocks[-1] < bytes_of()
        by_rank = [bytes_of(lora_rank=n) for n in (1, 4, 16)]
        assert by_rank == sorted(by_rank)
        assert len({*by_rank}) == 3
        assert by_rank[-1] < bytes_of()
        assert bytes_of(lora_rank=4, train_last=1) < min(bytes_of(lora_rank=4), bytes_of(train_last=1))

    def test_muon_has_one_mean_of_a_matrix_and_works_on_some_of_them_at_once(self) -> None:
        of_matrices = 4 * 12 * HPARAMS.n_embd**2 * HPARAMS.n_layer
        assert bytes_of() - bytes_of(optimizer="muon") == of_matrices
        learned = 4 * HPARAMS.n_layer * 16 * HPARAMS.n_embd * 4
        assert bytes_of(lora_rank=4) - bytes_of(lora_rank=4, optimizer="muon") == learned
        wide = HPARAMS._replace(n_embd=4096, n_head=32)
        few: dict[str, Any] = {"optimizer": "muon", "train_last": 1, "batch_size": 1, "window": 1, "hparams": wide}
        assert bytes_of(4, **few) - bytes_of(1, **few) > 3 * 4 * 4 * 4096**2

    def test_a_larger_batch_takes_no_more_once_each_thread_has_several_texts(self) -> None:
        assert bytes_of(1, batch_size=1) <= bytes_of(1, batch_size=2) == bytes_of(1, batch_size=100)
        assert bytes_of(4, batch_size=2) < bytes_of(4, batch_size=4)
        assert bytes_of(4, batch_size=1) == bytes_of(1, batch_size=1)  # the other threads have nothing to do

    def test_what_the_process_takes_before_is_added(self) -> None:
        assert bytes_of(before=12345) == bytes_of() + 12345

    def test_the_parameters_the_means_and_the_gradients_are_in_it(self) -> None:
        """A wide model with a short window has little else."""
        hparams = HParams(n_vocab=100, n_ctx=8, n_embd=2000, n_head=2, n_layer=3)
        options = Options(window=2, batch_size=2)
        n = count_params(hparams)
        assert estimate(hparams, options, 1, 0, 0) == pytest.approx(4 * 4 * n, rel=0.02)  # parameters, m, v, gradients
        assert estimate(hparams, options, 2, 0, 0) == pytest.approx(4 * 5 * n, rel=0.02)  # gradients of each thread
        assert estimate(hparams, options, 1, 0, 0, itemsize=8) == pytest.approx(4 * 8 * n, rel=0.02)
        lora = estimate(hparams, replace(options, lora_rank=1), 1, 0, 0)
        assert lora == pytest.approx(4 * 3 * n, rel=0.02)  # parameters, the frozen ones, and their gradients
        last = estimate(hparams, replace(options, train_last=1), 1, 0, 0)
        assert last == pytest.approx(4 * 2 * n, rel=0.02)  # parameters, and three times a third of them


class TestFitting:
    @pytest.fixture
    def threads(self, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(runs, "count_threads", lambda: 2)
        return 2

    def fitting(self, monkeypatch: pytest.MonkeyPatch, free: int | None, **options: Any) -> tuple[Options, int]:
        monkeypatch.setattr(runs, "available_memory", lambda: free)
        monkeypatch.setattr(runs, "used_memory", lambda: GIB)
        monkeypatch.setattr(runs, "peak_memory", lambda: GIB)
        return runs.fitting_memory(HPARAMS, replace(OPTIONS, **options), GIB, TEXT)

    def test_the_options_stay_as_they_are_if_there_is_enough(
        self, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        """What the process takes already is not asked for again."""
        for free in (None, 100 * GIB, bytes_of(threads)):
            assert self.fitting(monkeypatch, free) == (OPTIONS, bytes_of(threads, before=GIB))
        assert self.fitting(monkeypatch, None, sparing=True)[0].sparing

    def test_with_less_it_becomes_sparing(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        expected = replace(OPTIONS, sparing=True), bytes_of(threads, before=GIB, sparing=True)
        for free in (bytes_of(threads) - 1, bytes_of(threads, sparing=True)):
            assert self.fitting(monkeypatch, free) == expected

    def test_what_is_held_out_counts(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        """The longest context of an evaluation is as long as what is held out."""
        hparams = HPARAMS._replace(n_ctx=4096)
        monkeypatch.setattr(runs, "available_memory", lambda: None)
        monkeypatch.setattr(runs, "peak_memory", lambda: None)
        for text, n in ((TEXT, 10_000), (TEXT._replace(held_out=None), 0), (None, 0)):
            expected = bytes_of(threads, hparams=hparams, n_held_out=n)
            assert runs.fitting_memory(hparams, OPTIONS, 0, text) == (OPTIONS, expected)

    def test_it_is_never_less_than_the_process_took_already(
        self, monkeypatch: pytest.MonkeyPatch, threads: int
    ) -> None:
        """As where the file of a model was in memory with the model. What it has now is not asked for again."""
        most = bytes_of(threads, before=GIB) + 12345
        monkeypatch.setattr(runs, "peak_memory", lambda: most)
        monkeypatch.setattr(runs, "used_memory", lambda: most - 10)
        for free in (None, 10):
            monkeypatch.setattr(runs, "available_memory", lambda free=free: free)
            assert runs.fitting_memory(HPARAMS, OPTIONS, GIB, TEXT) == (OPTIONS, most)

    @pytest.mark.parametrize("sparing", [False, True])
    def test_with_even_less_it_is_refused(self, monkeypatch: pytest.MonkeyPatch, threads: int, sparing: bool) -> None:
        expected = (
            r"^training takes about 1\.\d\dGB of memory, and 1\.00MB are free: a smaller --window, --threads 1, "
            "--train-last N, --lora-rank N or a smaller model need less$"
        )
        with pytest.raises(ValueError, match=expected):
            self.fitting(monkeypatch, 10**6, sparing=sparing)
        with pytest.raises(ValueError, match="^training takes about"):
            self.fitting(monkeypatch, bytes_of(threads, sparing=True) - 1, sparing=sparing)
