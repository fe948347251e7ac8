"""Threads of Python: their results and errors come in order, and their matrix products run on one core."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from numpy_gpt2.machine import workers
from numpy_gpt2.machine.workers import for_each_part, run_in_threads
from numpy_gpt2.params import Array

LONG = 60  # seconds after which a test fails that waits for another thread


class TestRunInThreads:
    def test_tasks_run_at_the_same_time_in_threads_of_their_own(self) -> None:
        barrier = threading.Barrier(3)

        def meet() -> int:
            barrier.wait(LONG)
            return threading.get_ident()

        assert len({*run_in_threads([meet] * 3), threading.get_ident()}) == 4

    def test_results_are_in_the_order_of_the_tasks(self) -> None:
        """The last one ends first."""
        ended = [threading.Event() for _ in range(4)]
        order = []

        def task(i: int) -> int:
            if i < 3:
                assert ended[i + 1].wait(LONG)
            order.append(i)
            ended[i].set()
            return 10 * i

        assert run_in_threads([partial(task, i) for i in range(4)]) == [0, 10, 20, 30]
        assert order == [3, 2, 1, 0]

    def test_the_first_error_is_raised_after_all_have_ended(self) -> None:
        """In the order of the tasks, though a later one has failed before."""
        has_failed, has_returned, ended = [threading.Event(), threading.Event()], threading.Event(), []

        def last() -> None:
            has_failed[1].set()
            raise KeyError("later")

        def first() -> None:
            assert has_failed[1].wait(LONG)
            has_failed[0].set()
            raise IndexError("first")

        def long() -> None:
            assert has_failed[0].wait(LONG)
            ended.append(any(has_returned.is_set() for _ in range(100_000)))  # time enough for a caller that goes on

        def run() -> None:
            try:
                run_in_threads([first, long, long, last])
            finally:
                has_returned.set()

        with pytest.raises(IndexError, match="first"):
            run()
        assert ended == [False, False]

    def test_tasks_within_a_task_run_one_after_another(self) -> None:
        """Threads of a pool that wait for tasks of the same pool would wait for ever."""

        def task() -> list[int]:
            return run_in_threads([threading.get_ident] * 2)

        first, second = run_in_threads([task, task])
        assert first[0] == first[1]
        assert second[0] == second[1]

    @pytest.mark.parametrize("n_interrupts", [1, 2, 3])
    def test_ctrl_c_however_often_waits_until_all_have_ended(
        self, n_interrupts: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What tasks change in place is whole only then."""
        may_end, ended, calls = threading.Event(), [], []

        def interrupted(*args: Any) -> Any:
            calls.append(1)
            if len(calls) <= n_interrupts:
                raise KeyboardInterrupt
            may_end.set()
            return concurrent.futures.wait(*args)

        def task() -> None:
            assert may_end.wait(LONG)
            ended.append(1)

        monkeypatch.setattr(workers, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in_threads([task] * 3)
        n_ended = len(ended)
        may_end.set()
        assert n_ended == 3
        assert run_in_threads([lambda: 1, lambda: 2]) == [1, 2]

    def test_ctrl_c_before_all_have_begun_waits_for_the_others_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half of a step would be worse than a whole one."""
        original, calls = workers.pool, []
        ended: list[int] = []

        def interrupted(n_threads: int) -> Any:
            calls.append(1)
            if len(calls) in (2, 3):
                raise KeyboardInterrupt
            return original(n_threads)

        monkeypatch.setattr(workers, "pool", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in_threads([partial(ended.append, i) for i in range(3)])
        assert sorted(ended) == [0, 1, 2]

    def test_a_single_task_runs_in_the_calling_thread(self) -> None:
        assert run_in_threads([threading.get_ident]) == [threading.get_ident()]
        with pytest.raises(ZeroDivisionError):
            run_in_threads([lambda: 1 / 0])

    @pytest.mark.skipif(
        not ThreadpoolController().select(user_api="blas").lib_controllers, reason="threadpoolctl finds no BLAS"
    )
    def test_products_use_one_thread_within_and_as_many_as_before_afterwards(self) -> None:
        """In a subprocess, since the number belongs to the whole process."""
        code = """
import threading, numpy, threadpoolctl
from numpy_gpt2.machine.workers import for_each_part, run_in_threads
barrier = threading.Barrier(2)
def numbers():
    return {each["num_threads"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"}
def both():
    barrier.wait(60)
    shown = numbers()
    barrier.wait(60)
    return shown
def fail():
    raise KeyError("failed")
threadpoolctl.threadpool_limits(2)
assert numbers() == {2}
assert run_in_threads([both, both]) == [{1}, {1}], "within"
assert numbers() == {2}, "afterwards"
assert run_in_threads([numbers]) == [{2}], "a single task"
assert for_each_part(lambda x: numbers(), [(numpy.ones(9),)], 2, part=3) == [{1}] * 3
assert for_each_part(lambda x: numbers(), [(numpy.ones(9),)], 1, part=3) == [{2}] * 3
try:
    run_in_threads([numbers, fail])
except KeyError:
    assert numbers() == {2}, "after an error"
    print("passed")
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.stderr == ""
        assert result.stdout == "passed\n"


def numbered(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


PART = 8
SHAPES = [(1,), (7,), (8,), (9,), (15,), (16,), (17,), (40,), (3, 5), (4, 4), (2, 3, 7), (), (0,)]


@pytest.mark.parametrize("n_threads", [0, 1, 2, 3, 50])
class TestForEachPart:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_every_number_is_in_one_part_in_order(self, shape: tuple[int, ...], n_threads: int) -> None:
        x = numbered(*shape)
        parts = for_each_part(lambda part: part.copy(), [(x,)], n_threads, part=PART)
        np.testing.assert_array_equal(np.concatenate([np.empty(0), *parts]), x.ravel())
        assert [len(part) for part in parts[:-1]] == [PART] * (len(parts) - 1)
        assert all(part.ndim == 1 and 0 < part.size <= PART for part in parts)

    def test_arrays_that_belong_together_are_divided_alike_and_changed_in_place(self, n_threads: int) -> None:
        pairs = [(numbered(*shape), -numbered(*shape), np.zeros(shape)) for shape in SHAPES]

        def work(x: Array, y: Array, z: Array) -> tuple[int, float]:
            assert (x + y == 0).all()
            z += x + 1
            return len(z), float(z[0])

        results = for_each_part(work, pairs, n_threads, part=PART)
        for x, _, z in pairs:
            np.testing.assert_array_equal(z, x + 1)
        sizes = [x.size for x, _, _ in pairs]
        expected = [(min(PART, size - i), i + 1.0) for size in sizes for i in range(0, size, PART)]
        assert results == expected

    def test_of_nothing_nothing_is_computed(self, n_threads: int) -> None:
        assert for_each_part(lambda part: 1, [], n_threads) == []

    def test_by_default_a_part_is_as_long_as_the_module_says(self, n_threads: int) -> None:
        x = np.zeros(2 * workers.PART + 1, np.float32)
        assert for_each_part(len, [(x,)], n_threads) == [workers.PART, workers.PART, 1]


@pytest.mark.parametrize("n_threads", [2, 3])
def test_parts_are_divided_over_threads_and_results_are_in_order_whichever_ends_first(n_threads: int) -> None:
    barrier = threading.Barrier(n_threads)

    def work(part: Array) -> tuple[float, int]:
        barrier.wait(LONG)  # fails unless all threads are at work
        return float(part[0]), threading.get_ident()

    results = for_each_part(work, [(numbered(4 * n_threads),)], n_threads, part=2)
    assert [first for first, _ in results] == [2.0 * i for i in range(2 * n_threads)]
    assert len({thread for _, thread in results}) == n_threads


def test_an_array_is_added_to_another_in_place() -> None:
    total, more = numbered(2, 3), numbered(2, 3) ** 2
    workers.add_to(total, more)
    np.testing.assert_array_equal(total, numbered(2, 3) + numbered(2, 3) ** 2)
    np.testing.assert_array_equal(more, numbered(2, 3) ** 2)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_first_error_of_a_part_is_raised(n_threads: int) -> None:
    def work(part: Array) -> None:
        if part[0] >= 4:
            raise ValueError(f"part {part[0]:g}")

    with pytest.raises(ValueError, match="^part 4$"):
        for_each_part(work, [(numbered(6),)], n_threads, part=2)
