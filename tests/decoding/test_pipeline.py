"""Pieces that follow each other through the blocks in several threads: the same as one after another."""

from __future__ import annotations

import _thread
import contextvars
import copy
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, random_ids, random_model
from threadpoolctl import threadpool_info

from numpy_gpt2 import layers, model
from numpy_gpt2.cache import LayerPast, Past
from numpy_gpt2.decoding import prefill
from numpy_gpt2.decoding.pipeline import run_in_pipeline
from numpy_gpt2.evaluation.hidden_states import hidden_states
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine import threads
from numpy_gpt2.params import HParams

HPARAMS = SHAPES[1]
LIMITS = {"float32": 1e-5, "float64": 1e-12}
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives a call, and matrix products use as many threads as before."""
    before, numbers = {*threading.enumerate()}, blas_threads()
    yield
    assert {*threading.enumerate()} == before
    assert blas_threads() == numbers


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(params=[2, 3, 5])
def n_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From now on, so many threads read, three tokens of all texts each."""
    monkeypatch.setattr(prefill, "count_workers", lambda params, n_tokens: request.param)
    monkeypatch.setattr(prefill, "TOKENS_PER_WORKER", 3)
    return int(request.param)


def read_whole(gpt2: GPT2, ids: Any, past: Past) -> Any:
    return model.transformer(model.embed(ids, gpt2.params, past), gpt2.params, gpt2.hparams.n_head, past)


@pytest.mark.usefixtures("n_workers")
@pytest.mark.parametrize("dtype", DTYPES)
class TestEqual:
    @pytest.mark.parametrize("lengths", [[0], [5], [0, 0, 0], [4, 1, 0]], ids=str)
    def test_vectors_and_past(self, dtype: str, lengths: list[int]) -> None:
        """Also where the texts go on from different lengths."""
        gpt2 = random_model(HPARAMS, dtype)
        ours, theirs = (gpt2.new_past(len(lengths)) for _ in range(2))
        for past in (ours, theirs):
            read_whole(gpt2, random_ids(HPARAMS, len(lengths), 5, seed=1), past)
            past.lengths[:] = lengths
        ids = random_ids(HPARAMS, len(lengths), 14)
        x, expected = prefill.read(ids, gpt2.params, HPARAMS.n_head, ours), read_whole(gpt2, ids, theirs)
        assert ours.lengths.tolist() == theirs.lengths.tolist()
        for a, b in ((x, expected), (ours.k, theirs.k), (ours.v, theirs.v)):
            np.testing.assert_allclose(a, b, rtol=0, atol=LIMITS[dtype] * np.abs(b).max())

    def test_hidden_states(self, dtype: str) -> None:
        gpt2 = random_model(HPARAMS, dtype)
        ids = random_ids(HPARAMS, 2, 14)
        states = hidden_states(ids, gpt2.params, HPARAMS.n_head)
        with prefill.tokens_at_once(None):
            expected = hidden_states(ids, gpt2.params, HPARAMS.n_head)
        for a, b in zip(states, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=LIMITS[dtype] * np.abs(b).max())

    def test_texts(self, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if dtype == "float32":
            pytest.skip("a draw could differ by rounding")
        gpt2 = random_model(HPARAMS, dtype)
        prompts = [[1, 2, 3] * 5, [4], [5, 6, 7, 8, 9, 10, 0]]

        def texts() -> list[list[int]]:
            return [found.ids for found in gpt2.generate(prompts, 5, seed=0, return_details=True)]

        made = texts()
        monkeypatch.setattr(prefill, "count_workers", lambda params, n_tokens: 1)
        assert texts() == made


class TestOrder:
    def test_a_piece_goes_on_when_the_keys_and_values_before_it_are_stored(
        self, n_workers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpt2 = random_model(HPARAMS)
        seen: list[tuple[Any, Any]] = []
        used: set[int] = set()
        original = LayerPast.append

        def append(self: LayerPast, k: Any, v: Any) -> Any:
            used.add(threading.get_ident())
            appended = original(self, k, v)
            seen.append((appended, copy.deepcopy(appended)))
            return appended

        monkeypatch.setattr(LayerPast, "append", append)
        prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head)
        assert len(used) <= n_workers
        assert threading.get_ident() not in used
        assert len(seen) >= n_workers * HPARAMS.n_layer
        for at_the_end, then in seen:
            np.testing.assert_array_equal(then, at_the_end)

    @pytest.mark.parametrize("change", ["skip", "skip later", "twice", "backwards", "two rounds"])
    def test_another_order_gives_what_one_thread_gives(
        self, n_workers: int, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with a function of one's own in the place of `layers.block`, or a changed `model.transformer`."""
        gpt2 = random_model(HPARAMS)
        original = layers.block

        def block(x: Any, params: Any, n_head: int, past: Any) -> Any:
            if change == "skip" or (change == "skip later" and past.positions.min() > 2):
                return x
            return original(original(x, params, n_head, past), params, n_head, past)

        def transformer(x: Any, params: Any, n_head: int, past: Any) -> Any:
            numbers = range(len(params.h))
            layer_pasts = past.layers(x.shape[1])
            for number in (*numbers, *numbers) if change == "two rounds" else reversed(numbers):
                x = original(x, params.h[number], n_head, layer_pasts[number])
            past.lengths += x.shape[1]
            return x

        if change in ("backwards", "two rounds"):
            monkeypatch.setattr(model, "transformer", transformer)
        else:
            monkeypatch.setattr(layers, "block", block)
        ids, past = random_ids(HPARAMS, 1, 18), gpt2.new_past()
        x = prefill.read(ids, gpt2.params, HPARAMS.n_head, past)
        assert past.lengths.tolist() == [18]
        length, _ = prefill.plan(1, 18, gpt2.params)
        monkeypatch.setattr(prefill, "plan", lambda n_batch, n_seq, params: (length, 1))
        np.testing.assert_allclose(x, prefill.read(ids, gpt2.params, HPARAMS.n_head), rtol=0, atol=1e-12)

    def test_matrix_products_use_one_thread(self, n_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        gpt2 = random_model(HPARAMS)
        found: list[list[int]] = []
        original = layers.gelu

        def gelu(x: Any) -> Any:
            found.append(blas_threads())
            return original(x)

        monkeypatch.setattr(layers, "gelu", gelu)
        prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head)
        assert {n for numbers in found for n in numbers} <= {1}
        assert found

    @pytest.mark.usefixtures("n_workers")
    def test_the_threads_see_the_contextvars_of_the_caller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as NumPy's `errstate`."""
        gpt2 = random_model(HPARAMS)
        gpt2.params.h[0].mlp.c_fc.b[:] = np.inf  # inf - inf is invalid
        token = VARIABLE.set("as set")
        seen: set[str] = set()
        original = layers.gelu

        def gelu(x: Any) -> Any:
            seen.add(VARIABLE.get())
            return original(x)

        monkeypatch.setattr(layers, "gelu", gelu)
        with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
            prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head)
        VARIABLE.reset(token)
        assert seen == {"as set"}


@pytest.fixture
def ctrl_c_raises() -> Iterator[None]:
    """Also where pytest runs in the background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("n_workers", "ctrl_c_raises")
class TestFailure:
    @pytest.mark.parametrize("piece", [0, 1, 2])
    def test_an_exception_arrives_whole_and_leaves_the_past_as_it_was(
        self, piece: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpt2 = random_model(HPARAMS)
        past = gpt2.new_past()
        read_whole(gpt2, random_ids(HPARAMS, 1, 2, seed=1), past)
        error = RuntimeError("of a worker")
        original, lock, n_calls = layers.mlp, threading.Lock(), [0]

        def mlp(x: Any, params: Any) -> Any:
            with lock:
                n_calls[0] += 1
            if params is gpt2.params.h[1].mlp and n_calls[0] > piece * HPARAMS.n_layer:
                raise error
            return original(x, params)

        monkeypatch.setattr(layers, "mlp", mlp)
        with pytest.raises(RuntimeError) as caught:
            prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head, past)
        assert caught.value is error
        assert past.lengths.tolist() == [2]
        monkeypatch.undo()
        assert prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head, past).shape[1] == 18

    def test_ctrl_c_ends_it_and_leaves_the_past_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpt2 = random_model(HPARAMS)
        past = gpt2.new_past()
        entered: list[int] = []
        lock = threading.Lock()
        original = layers.block

        def block(x: Any, params: Any, n_head: int, layer_past: Any) -> Any:
            with lock:
                entered.append(1)
                if len(entered) == 2:
                    _thread.interrupt_main()
            return original(x, params, n_head, layer_past)

        def read_on() -> None:
            while True:  # the interrupt may arrive after a short text has been read
                prefill.read(random_ids(HPARAMS, 1, 18), gpt2.params, HPARAMS.n_head, past)
                past.lengths[:] = 0

        monkeypatch.setattr(layers, "block", block)
        with pytest.raises(KeyboardInterrupt):
            read_on()
        assert past.lengths.tolist() == [0]

    def test_after_ctrl_c_no_piece_enters_another_block(self) -> None:
        past = random_model(HPARAMS).new_past()
        went_on = []

        def run(start: int, past: Any) -> None:
            if start == 0:
                _thread.interrupt_main()
                past.stopped.wait()
            for layer_past in past.layers(1):
                layer_past.append(np.zeros(1), np.zeros(1))
                went_on.append(start)

        with pytest.raises(KeyboardInterrupt):
            run_in_pipeline(run, past, range(4), n_workers=2)
        assert went_on == []

    def test_when_a_thread_cannot_be_started_the_others_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpt2 = random_model(HPARAMS)
        original = threading.Thread.start

        def start(self: threading.Thread) -> None:
            if threading.active_count() > n_before:
                raise RuntimeError("can't start new thread")
            original(self)

        n_before = threading.active_count()
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            prefill.read(random_ids(HPARAMS, 1, 100), gpt2.params, HPARAMS.n_head)

    def test_when_one_fails_no_piece_after_it_goes_on(self) -> None:
        """The first piece is interrupted while the others wait for it."""
        past = random_model(HPARAMS).new_past()
        waits, went_on = threading.Event(), []

        def run(start: int, past: Past) -> None:
            if start:
                waits.set()
                for layer_past in past.layers(1):
                    layer_past.append(np.zeros(1), np.zeros(1))
                    went_on.append(start)
            else:
                waits.wait()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_in_pipeline(run, past, range(4), n_workers=2)
        assert went_on == []


class TestPlan:
    """A text is cut into equal pieces, as many for each thread."""

    @pytest.mark.parametrize(
        ("n_threads", "n_batch", "n_seq", "expected"),
        [
            (1, 1, 1000, (256, 1)),
            (2, 1, 1, (256, 1)),
            (2, 300, 1, (1, 1)),
            (2, 1, 255, (256, 1)),
            (2, 1, 256, (128, 2)),
            (2, 1, 300, (150, 2)),
            (2, 1, 1000, (125, 2)),
            (2, 4, 100, (25, 2)),
            (2, 300, 5, (1, 2)),
            (4, 1, 1000, (125, 4)),
            (4, 1, 383, (256, 1)),
            (4, 1, 384, (128, 3)),
            (16, 1, 256, (256, 1)),
            (16, 1, 1000, (143, 7)),
            (None, 1, 1000, (256, 1)),
        ],
    )
    def test_by_the_number_of_threads(
        self,
        n_threads: int | None,
        n_batch: int,
        n_seq: int,
        expected: tuple[int, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(threads, "count_threads", lambda: n_threads)
        params = random_model(HPARAMS).params
        assert prefill.plan(n_batch, n_seq, params) == expected
        with prefill.tokens_at_once(None):
            assert prefill.plan(n_batch, n_seq, params) == (n_seq, 1)


def test_whatever_is_read_in_one_piece_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a trace is recorded, since lines are traced in one thread."""

    def never(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(prefill, "run_in_pipeline", never)
    monkeypatch.setattr(threads, "count_threads", lambda: 2)
    hparams = HParams(n_vocab=11, n_ctx=300, n_embd=4, n_head=2, n_layer=1)
    gpt2 = random_model(hparams)
    prefill.read(random_ids(hparams, 1, 255), gpt2.params, 2)
    with prefill.tokens_at_once(None):
        prefill.read(random_ids(hparams, 1, 300), gpt2.params, 2)
    with pytest.raises(AssertionError):
        prefill.read(random_ids(hparams, 1, 300), gpt2.params, 2)


def test_calls_at_the_same_time_leave_the_number_of_threads_as_it_was(n_workers: int) -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, 18)
    expected = read_whole(gpt2, ids, gpt2.new_past())
    results: list[Any] = []

    def read() -> None:
        for _ in range(20):
            results.append(prefill.read(ids, gpt2.params, HPARAMS.n_head))

    callers: list[threading.Thread] = [threading.Thread(target=read) for _ in range(4)]
    run_all(callers)
    assert len(results) == 80
    for x in results:
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12)


def run_all(callers: list[threading.Thread]) -> None:
    for act in (threading.Thread.start, threading.Thread.join):
        call: Callable[[threading.Thread], None] = act
        for caller in callers:
            call(caller)
