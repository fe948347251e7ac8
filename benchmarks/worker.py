"""A process in which one program is measured: `python -m benchmarks.worker NAME FOLDER`, asked line by line in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from numpy_gpt2.model_options import THREADS


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
            env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer to a question, which is the name of a function of `answers`.

        Raises:
            RuntimeError: the process has ended; what went wrong is on standard error.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps([question, *arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} could not be measured: its process has ended")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def peak_memory() -> float:
    """The most physical memory that this process has used, the mapped weights included, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bandwidth() -> float:
    """How many bytes of a matrix one `vector @ matrix` gets through in a second."""
    import numpy as np

    matrix = np.ones((4096, 12288), np.float32)  # 200 MB: more than any cache holds
    vector = np.ones(4096, np.float32)
    return matrix.nbytes / fastest(lambda: vector @ matrix)


def arithmetic() -> float:
    """How many floating-point operations a large product of float32 matrices does in a second."""
    import numpy as np

    n = 2048
    matrix = np.ones((n, n), np.float32)
    return 2 * n**3 / fastest(lambda: matrix @ matrix)


def fastest(action: Any, times: int = 5) -> float:
    """The shortest of several durations, in seconds."""
    durations = []
    for _ in range(times):
        start = perf_counter()
        action()
        durations.append(perf_counter() - start)
    return min(durations)


def main(name: str, folder: str) -> None:
    """Answers questions until there are no more."""
    answers: dict[str, Any] = {"peak_memory": peak_memory}
    if name == "limits":
        answers |= {"bandwidth": bandwidth, "arithmetic": arithmetic}
    else:
        from .peers import PEERS

        start = perf_counter()
        generate = PEERS[name](Path(folder))
        seconds = perf_counter() - start
        answers |= {"generate": lambda prompts, n: generate(prompts, n)[0], "load": lambda: seconds}
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        print(json.dumps(answers[question](*arguments)), flush=True)


if __name__ == "__main__":
    arguments: Sequence[str] = sys.argv[1:]
    main(*arguments)
