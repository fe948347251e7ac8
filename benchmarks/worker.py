"""A process in which one program is measured: `python -m benchmarks.worker NAME FOLDER`, asked line by line in JSON."""

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

from numpy_gpt2.model_options import THREADS

ROOT = Path(__file__).parent.parent


def environment(threads: int) -> dict[str, str]:
    """The environment of a process that may use so many threads, and finds this package wherever it is started."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": path}


class Worker:
    """The other side's handle on such a process. Its model is loaded before it answers the first question.

    Args:
        name: a peer of `peers.PEERS`, or `limits` for the machine itself.
        folder: the model.
        threads: how many threads it may use.
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
        """The answer to a question, which is the name of one of the `answers` below.

        Raises:
            RuntimeError: the process has ended, or could not answer.
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
    """Saves a random model of this shape in a folder. Here, since a new process cannot import from a `__main__`."""
    from numpy_gpt2 import HParams, init, save

    save(init(HParams(*hparams), backend="numpy"), folder)


def peak_memory() -> float:
    """The most physical memory that this process has used, the mapped weights included, in bytes.

    Raises:
        OSError: the system does not tell; only Linux does, for a process without what it was started by.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM")


def bandwidth() -> float:
    """How many bytes of a matrix one `vector @ matrix` gets through in a second: the best of a few."""
    matrix = ones(4096, 12288)  # 200 MB: more than the caches of most processors hold
    vector = ones(4096)
    return 4 * matrix.size / fastest(lambda: vector @ matrix)


def arithmetic() -> float:
    """How many floating-point operations a large product of float32 matrices does in a second: the best of a few."""
    n = 2048
    matrix = ones(n, n)
    return 2 * n**3 / fastest(lambda: matrix @ matrix)


def ones(*shape: int) -> Any:
    """An array of ones in float32, where the backend computes."""
    import numpy as np

    from numpy_gpt2.backend import array_to, choose_backend

    return array_to(choose_backend(), np.ones(shape, np.float32))


def fastest(product: Callable[[], Any], times: int = 5) -> float:
    """The shortest time, in seconds, in which a product is there: on a GPU, one waits for it by asking for a number."""
    durations = []
    for _ in range(times):
        start = perf_counter()
        float(product().reshape(-1)[0])
        durations.append(perf_counter() - start)
    return min(durations)


def main(name: str, folder: str) -> None:
    """Answers questions until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer

    def reply(question: str, *arguments: Any) -> dict[str, Any]:
        try:
            return {"answer": answers[question](*arguments)}
        except (OSError, ValueError, MemoryError, ImportError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    answers: dict[str, Callable[..., Any]] = {"bandwidth": bandwidth, "arithmetic": arithmetic}
    if name != "limits":
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
