"""Where the time goes on one thread, function by function: `python -m benchmarks.functions`.

The time of NumPy's operators and elementwise functions counts for the function of this package that uses them.
"""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path

import numpy_gpt2
from numpy_gpt2 import HParams

PACKAGE = Path(numpy_gpt2.__file__).parent

SHAPE = HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12)
TASKS: dict[str, tuple[int, int, int]] = {  # prompts, their length, new tokens
    "50 tokens after a prompt of 16": (1, 16, 50),
    "20 tokens after a prompt of 1000": (1, 1000, 20),
    "20 tokens of each of 16 texts": (16, 16, 20),
    "a prompt of 1000": (1, 1000, 1),
}


def own_times(action: Callable[[], object]) -> dict[str, tuple[float, int]]:
    """For each function, the seconds spent in it alone and the number of calls; the slowest first."""
    profile = cProfile.Profile()
    profile.runcall(action)
    found: dict[str, tuple[float, int]] = {}
    for (file, _, name), (_, calls, seconds, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        label = f"elsewhere: {name}"
        if Path(file).is_relative_to(PACKAGE):
            label = ".".join([*Path(file).relative_to(PACKAGE).with_suffix("").parts, name])
        seconds_before, calls_before = found.get(label, (0.0, 0))
        found[label] = seconds_before + seconds, calls_before + calls
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def main() -> None:
    """Prints a table for each task."""
    numpy_gpt2.set_threads(1)  # the profiler sees one
    model = numpy_gpt2.init(SHAPE)
    model.generate([0] * 300, 3, temperature=0)
    for title, (n_batch, n_prompt, n) in TASKS.items():
        prompts = [[(i + row) % 50257 for i in range(n_prompt)] for row in range(n_batch)]
        times = own_times(lambda prompts=prompts, n=n: model.generate(prompts, n, temperature=0))  # type: ignore[misc]
        total = sum(seconds for seconds, _ in times.values())
        print(f"### {title}: {total:.2f} s\n\n| function | share | calls |\n|---|---:|---:|")
        for name, (seconds, calls) in [*times.items()][:12]:
            print(f"| `{name}` | {seconds / total:.1%} | {calls} |")
        print()


if __name__ == "__main__":
    main()
