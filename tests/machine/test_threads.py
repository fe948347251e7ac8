"""The number of threads, as threadpoolctl reports it; in subprocesses, since it is set for a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np  # noqa: F401  (loads the BLAS, so that threadpoolctl finds it)
import pytest
from threadpoolctl import ThreadpoolController

import numpy_gpt2

# Defines `show`, which prints the numbers of threads of the BLAS, and writes what is logged to stderr.
PREPARE = """
import json, logging, threadpoolctl
import numpy_gpt2
logging.basicConfig(format="%(levelname)s %(message)s")
def show():
    libraries = threadpoolctl.threadpool_info()
    numbers = [library["num_threads"] for library in libraries if library["user_api"] == "blas"]
    print(json.dumps(numbers))
"""


def in_a_process(code: str) -> tuple[list[list[int]], str]:
    """What the calls of `show` in this code print, and what is logged."""
    result = subprocess.run([sys.executable, "-c", PREPARE + code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


@pytest.mark.skipif(
    not ThreadpoolController().select(user_api="blas").lib_controllers, reason="threadpoolctl finds no BLAS"
)
def test_threads_are_set_at_run_time() -> None:
    """Before a model is loaded and after it has computed, more and fewer."""
    shown, logged = in_a_process(
        "numpy_gpt2.set_threads(1); show()\n"
        "model = numpy_gpt2.load('tiny'); model.logits([1, 2]); show()\n"
        "numpy_gpt2.set_threads(2); show()\n"
        "model.logits([1, 2]); show()\n"
        "numpy_gpt2.set_threads(1); show()\n"
    )
    n = len(shown[0])
    assert shown == [[1] * n, [1] * n, [2] * n, [2] * n, [1] * n]
    assert n > 0
    assert logged == ""


def test_a_number_of_numpy_is_accepted() -> None:
    shown, _ = in_a_process("import numpy as np\nnumpy_gpt2.set_threads(np.uint8(1)); show()")
    assert {*shown[0]} <= {1}


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_anything_but_a_positive_whole_number_is_refused(n: Any) -> None:
    with pytest.raises(ValueError, match=f"^the number of threads must be 1 or more, not {n!r}$"):
        numpy_gpt2.set_threads(n)


def test_without_a_library_whose_threads_can_be_set_there_is_a_warning() -> None:
    _, logged = in_a_process(
        "class NothingFound:\n"
        "    lib_controllers = []\n"
        "    def select(self, **_):\n"
        "        return self\n"
        "threadpoolctl.ThreadpoolController = NothingFound\n"
        "numpy_gpt2.set_threads(1)\n"
    )
    assert logged.startswith("WARNING the number of threads stays as it is")
    assert len(logged.splitlines()) == 1


SHOW_IN_PASS = """
from numpy_gpt2 import layers
original = layers.gelu
def shown(x):
    show()
    return original(x)
layers.gelu = shown
def block_of(n_embd):
    return numpy_gpt2.init(numpy_gpt2.HParams(n_vocab=11, n_ctx=8, n_embd=n_embd, n_head=2, n_layer=1))
"""


@pytest.mark.parametrize(
    ("n_embd", "is_set", "expected"),
    [(8, False, [1, 2]), (8, True, [2, 2]), (1200, False, [2, 2])],  # 1200: 17 million parameters
)
def test_a_small_model_computes_on_one_thread_unless_the_user_has_set_a_number(
    n_embd: int, is_set: bool, expected: list[int]
) -> None:
    given = "numpy_gpt2.set_threads(2)" if is_set else "threadpoolctl.threadpool_limits(2)"
    shown, _ = in_a_process(
        f"{SHOW_IN_PASS}\n{given}\nmodel = block_of({n_embd})\n"
        "model.logits([1, 2]); show()\n"
        "model.hidden_states([1, 2]); show()\n"
        "for _ in model.score([1, 2, 3]): show()\n"
        "model.loss([1, 2, 3]); show()\n"
        "model.generate([1, 2], 1, return_details=True); show()\n"
    )
    assert shown == [[n] * len(shown[0]) for n in expected * 5]


def test_between_two_tokens_the_number_is_the_users() -> None:
    shown, _ = in_a_process(
        "threadpoolctl.threadpool_limits(2)\n"
        "stream = numpy_gpt2.load('tiny').stream('The king', 9, seed=0)\n"
        "next(stream); show(); next(stream); show()\n"
    )
    assert shown == [[2] * len(shown[0])] * 2


def test_when_the_last_of_several_leaves_the_number_is_what_it_was() -> None:
    shown, _ = in_a_process(
        "from numpy_gpt2.machine.threads import count_threads, on_one\n"
        "threadpoolctl.threadpool_limits(2)\n"
        "first, second = on_one(), on_one()\n"
        "first.__enter__(); second.__enter__(); show()\n"
        "assert count_threads() == 2\n"
        "first.__exit__(None, None, None); show()\n"
        "second.__exit__(None, None, None); show()\n"
        "with on_one():\n"
        "    numpy_gpt2.set_threads(2); show()\n"
        "show()\n"
    )
    n = len(shown[0])
    assert shown == [[1] * n, [1] * n, [2] * n, [1] * n, [2] * n]


def test_after_an_interrupt_that_kept_a_thread_within_the_next_pass_has_all_threads() -> None:
    shown, _ = in_a_process(
        f"{SHOW_IN_PASS}\n"
        "from numpy_gpt2.machine.threads import on_one\n"
        "threadpoolctl.threadpool_limits(2)\n"
        "interrupted = on_one()\n"
        "interrupted.__enter__(); show()\n"
        "block_of(1200).logits([1, 2]); show()\n"
        "interrupted.__exit__(None, None, None); show()\n"
    )
    n = len(shown[0])
    assert shown == [[1] * n, [2] * n, [2] * n, [2] * n]
