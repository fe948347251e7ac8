"""A process that runs one program to be measured, `python -m benchmarks.worker NAME FOLDER`: JSON lines in and out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parent.parent
TRAINING = "training with "  # before the name of a program that is to make steps of training
# How NumPy's and PyTorch's matrix libraries are told the number of threads, whichever library it is.
THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def environment(threads: int) -> dict[str, str]:
    """The environment of a process that uses this many threads and can import this package from any folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path}


class Worker:
    """Starts such a process and talks to it. The process loads its model before it answers the first question.

    Args:
        name: a program of `peers.PEERS`; one of `training.PROGRAMS`, after `TRAINING`; `speculation` for this
            package with drafts and without; or `limits` for the machine itself.
        folder: the model.
        threads: how many threads the process may use.
    """

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, folder],
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0]:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer to a question: the name of one of the `answers` in `main`, with arguments.

        Raises:
            RuntimeError: the process has ended, or the question caused an error.
        """
        assert self._process.stdin
        assert self._process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([question, *arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise RuntimeError(f"{self.name} could not be measured: {answer['error']}")
        return answer["answer"]


def save_random(folder: Path, hparams: tuple[int, ...]) -> None:
    """Saves a random model of this shape in a folder.

    It is defined here because a spawned process cannot import from a `__main__`.
    """
    from numpy_gpt2 import HParams, init, save

    save(init(HParams(*hparams), backend="numpy"), folder)


def peak_memory() -> float:
    """The peak physical memory of this process in bytes, including the memory-mapped weights.

    Raises:
        OSError: the system does not report it. Linux does; elsewhere, the figure would include the parent process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM")


def bandwidth() -> float:
    """How many bytes of a matrix `vector @ matrix` reads per second: the best of a few runs."""
    matrix = ones(4096, 12288)  # 200 MB: larger than the caches of most processors
    vector = ones(4096)
    return 4 * matrix.size / fastest(lambda: vector @ matrix)


def arithmetic() -> float:
    """How many floating-point operations per second a large float32 product reaches: the best of a few runs."""
    n = 2048
    matrix = ones(n, n)
    return 2 * n**3 / fastest(lambda: matrix @ matrix)


def ones(*shape: int) -> Any:
    """A float32 array of ones, on the chosen backend."""
    import numpy as np

    from numpy_gpt2.machine.backend import array_to, choose_backend

    return array_to(choose_backend(), np.ones(shape, np.float32))


def fastest(product: Callable[[], Any], times: int = 5) -> float:
    """The shortest time of a product in seconds. Reading one number of the result makes a GPU finish first."""
    durations = []
    for _ in range(times):
        start = perf_counter()
        float(product().reshape(-1)[0])
        durations.append(perf_counter() - start)
    return min(durations)


def main(name: str, folder: str) -> None:
    """Answers questions until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that what a library prints is not taken for an answer

    def reply(question: str, *arguments: Any) -> dict[str, Any]:
        try:
            return {"answer": answers[question](*arguments)}
        except (OSError, ValueError, MemoryError, ImportError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    answers: dict[str, Callable[..., Any]] = {"bandwidth": bandwidth, "arithmetic": arithmetic}
    if name == "speculation":
        from . import speculation

        answers = {"write": speculation.load(Path(folder))}
    elif name.startswith(TRAINING):
        from . import training

        step = training.PROGRAMS[name.removeprefix(TRAINING)](Path(folder))
        answers = {"step": step, "peak_memory": peak_memory}
    elif name != "limits":
        from .peers import PEERS

        load = PEERS[name]()
        start = perf_counter()
        generate = load(Path(folder))
        seconds = perf_counter() - start
        answers = {
            "generate": lambda prompts, n: generate(prompts, n)[0],
            "load": lambda: seconds,
            "peak_memory": peak_memory,
        }
    for line in sys.stdin:
        print(json.dumps(reply(*json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
