"""The benchmark: `python -m benchmarks`. Prints tables as it goes, and writes all figures to a JSON file.

All programs have the same random weights and the same number of threads, each in a process of its own. In
each round, each does each task once, in a random order, and the machine's own limits are measured first.
Figures are medians over the rounds. Two things are done once only: the peak memory, and the tutorial's
loop, which takes minutes. The tokenizers run in turn in one process.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import numpy as np

from numpy_gpt2 import HParams
from numpy_gpt2.backend import BACKENDS, VARIABLE, choose_backend
from numpy_gpt2.configs import read_hparams
from numpy_gpt2.files import write_atomically
from numpy_gpt2.params import number_of_params

from . import cold, tokenizers
from .peers import NEEDS, PEERS
from .worker import Worker, save_random

SIZES = {
    "124M": HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
}
TASKS = ["tokens", "prompts", "batches", "memory", "load", "cold", "tokenizer"]
ON_GPU = ["tokens", "prompts", "batches", "load"]  # the others are about main memory and the processor
OURS = "numpy_gpt2"
PAUSE = 0.1  # seconds, in which the threads of the one before go to sleep
BETTER = "ours is better by"


class Task(NamedTuple):
    """Prompts to continue, and what of it is measured."""

    name: str
    n_batch: int
    n_prompt: int
    unit: str  # ms/token and tokens/s: from one token to the next; ms: from the prompt to the first token

    def seconds(self, moments: list[float]) -> float:
        """What is measured, given the moments of the start and of each token."""
        steps = [after - before for before, after in itertools.pairwise(moments)]
        return steps[0] if self.unit == "ms" else statistics.median(steps[1:])

    def figure(self, seconds: float) -> float:
        """The same in the task's unit."""
        return self.n_batch / seconds if self.unit == "tokens/s" else 1000 * seconds

    def least_seconds(self, hparams: HParams, bandwidth: float, arithmetic: float) -> float:
        """The time that the machine needs at least: to read all weights and the past once, or to calculate.

        Args:
            hparams: the model.
            bandwidth: bytes a second.
            arithmetic: floating-point operations a second.
        """
        n_vocab, n_ctx, n_embd, _, n_layer = hparams
        n_new = self.n_prompt if self.unit == "ms" else 1  # tokens that are read, of each text
        n_past = self.n_prompt - n_new
        of_blocks = number_of_params(hparams) - n_embd * (n_vocab + n_ctx)
        scores = sum(range(n_past + 1, n_past + n_new + 1))
        operations = 2 * (n_new * of_blocks + n_vocab * n_embd + 2 * n_layer * n_embd * scores)
        weights = of_blocks + n_vocab * n_embd
        past = 2 * n_layer * n_embd * n_past
        return max(4 * (weights + self.n_batch * past) / bandwidth, self.n_batch * operations / arithmetic)


GROUPS = {
    "tokens": [Task(f"one token, at a context of {n}", 1, n, "ms/token") for n in (16, 256, 1000)],
    "prompts": [Task(f"a prompt of {n} tokens", 1, n, "ms") for n in (16, 128, 512, 1000)],
    "batches": [Task(f"a batch of {n}", n, 16, "tokens/s") for n in (1, 5, 16)],
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure numpy_gpt2 beside what people would use instead."
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number: dict[str, Any] = {"type": positive, "metavar": "N"}
    parser.add_argument("--sizes", nargs="+", default=["124M"], choices=SIZES, help="models' shapes (default: 124M)")
    parser.add_argument("--threads", default=cores, help="of each program (default: all, %(default)s)", **number)
    peers = [peer for peer in PEERS if peer != OURS]
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers, help="default: all that are installed")
    parser.add_argument(
        "--tasks", nargs="+", default=TASKS, choices=TASKS, help="what is measured (default: all of it)"
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, help="cupy: on a GPU, beside transformers on the same one (default: as for load)"
    )
    parser.add_argument("--rounds", default=5, help="figures are medians of so many (default: %(default)s)", **number)
    parser.add_argument("--corpus", type=Path, help="a text file, of which the tokenizers read the first 4 MB")
    parser.add_argument("--models", type=Path, help="a folder in which the random models stay for the next time")
    parser.add_argument(
        "--json", type=Path, default=Path("benchmark.json"), help="the file for all figures (default: %(default)s)"
    )
    return parser


def positive(text: str) -> int:
    """A whole number from the command line, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the options ask for; 0 if that was possible."""
    args = parser().parse_args(arguments)
    try:
        run(args)
    except KeyboardInterrupt:
        print(f"interrupted; what has been measured is in {args.json}", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Measures what the options ask for. What has been measured is in the file, even if the rest fails.

    Raises:
        ImportError: the backend does not work here.
        OSError: a file cannot be read or written.
        RuntimeError: a program could not be measured.
    """
    os.environ[VARIABLE] = choose_backend(args.backend)  # for the processes that are measured
    if os.environ[VARIABLE] == "cupy":
        if dropped := [task for task in args.tasks if task not in ON_GPU]:
            print(f"not about a GPU, and so not measured: {', '.join(dropped)}", file=sys.stderr)
        args.tasks = [task for task in args.tasks if task in ON_GPU]
    texts = tokenizers.texts(args.corpus) if "tokenizer" in args.tasks else {}
    peers = [peer for peer in args.peers if all(map(importlib.util.find_spec, NEEDS[peer]))]
    if missing := {*args.peers} - {*peers}:
        print(f"not installed, and so not measured: {', '.join(sorted(missing))}", file=sys.stderr)
    results: dict[str, Any] = {"machine": machine(args.threads), "rounds": args.rounds}

    @contextmanager
    def table(title: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Takes the rows of a table as they are measured, keeps them in the file, and prints all of them at the end."""
        rows = results[title] = {}

        def keep(more: dict[str, Any]) -> None:
            rows.update(more)
            write_atomically(args.json, lambda file: file.write_text(json.dumps(results, indent=1) + "\n"))

        keep({})
        try:
            yield keep
        finally:
            print_table(title, rows)

    print(" · ".join(f"{key} {value}" for key, value in results["machine"].items()) + "\n", flush=True)
    with folder_of_models(args.models) as folder:
        for size in args.sizes if {*args.tasks} - {"tokenizer"} else ():
            make_model(folder / size, SIZES[size])
            with table(size) as keep:
                for rows in measure_size(SIZES[size], folder / size, peers, args):
                    keep(rows)
    if texts:
        with table("tokenizer") as keep:
            for title, text in texts.items():
                keep(measure_tokenizers(title, text, args.rounds))
    print(f"all figures are in {args.json}", file=sys.stderr)


def machine(threads: int) -> dict[str, str]:
    """What the figures were taken on."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = ("numpy", "torch", "transformers", "tiktoken", "tokenizers")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        **({"GPU": gpu()} if os.environ[VARIABLE] == "cupy" else {}),
        "threads": str(threads),
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in packages if importlib.util.find_spec(name)},
        "BLAS": f"{blas['name']} {blas['version']}",
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu() -> str:
    """The GPU's name."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


@contextmanager
def folder_of_models(kept: Path | None) -> Iterator[Path]:
    """The folder that the models are in, for good or for as long as this runs."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def make_model(folder: Path, hparams: HParams) -> None:
    """Saves a random model, if it is not there yet; in another process, so that this one stays small.

    Raises:
        RuntimeError: it cannot be saved, or there is a model of another shape.
    """
    if (folder / "model.safetensors").exists():
        if read_hparams(folder) != hparams:
            raise RuntimeError(f"{folder} holds a model of another shape: give --models another folder")
        return
    print(f"making a random model in {folder} ...", file=sys.stderr)
    process = multiprocessing.get_context("spawn").Process(target=save_random, args=(folder, tuple(hparams)))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"no model could be saved in {folder}")


def measure_size(hparams: HParams, model: Path, peers: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All figures of one model, group by group."""
    tasks = [task for name, group in GROUPS.items() if name in args.tasks for task in group]
    if tasks:
        yield measure_tasks(hparams, model, [OURS, *peers], tasks, args)
    names = [OURS, *(peer for peer in peers if peer != "tutorial")]
    if "memory" in args.tasks and not Path("/proc/self/status").exists():
        print("only Linux tells the peak memory of a process: not measured", file=sys.stderr)
    elif "memory" in args.tasks:
        peaks = {name: [memory(name, model, args.threads)] for name in names}
        yield {"peak memory, with a prompt of 1000": compare("MB", peaks)}
    if "load" in args.tasks:
        seconds = in_turn(names, args.rounds, lambda name: loading(name, model, args.threads))
        yield {"loading": compare("s", seconds)}
    if "cold" in args.tasks:
        commands = cold.commands(model)
        for name in names:
            cold.first_token(name, commands[name], args.threads)  # brings everything into memory
        seconds = in_turn(names, args.rounds, lambda name: cold.first_token(name, commands[name], args.threads)[0])
        yield {"cold start, to the first token": compare("s", seconds)}


def in_turn(names: list[str], rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """What is measured of each program in each round, in which they take turns in a random order."""
    rng = random.Random(0)
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            values[name].append(measure(name))
    return values


def measure_tasks(
    hparams: HParams, model: Path, names: list[str], tasks: list[Task], args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of tasks, and which share of its time ours would need on the machine's limit."""
    rng = random.Random(0)
    seconds: dict[str, dict[str, list[float]]] = {task.name: {name: [] for name in names} for task in tasks}
    bandwidth: list[float] = []
    arithmetic: list[float] = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, model, args.threads)) for name in [*names, "limits"]}
        for name in names:
            workers[name].ask("generate", [[0] * 16], 3)  # the first pass brings the weights in
        for turn in range(args.rounds):
            bandwidth.append(workers["limits"].ask("bandwidth"))
            arithmetic.append(workers["limits"].ask("arithmetic"))
            for task in tasks:
                prompts = [[rng.randrange(hparams.n_vocab) for _ in range(task.n_prompt)] for _ in range(task.n_batch)]
                for name in rng.sample(names, len(names)):
                    if name == "tutorial" and turn:
                        continue
                    n_new = 1 if task.unit == "ms" else 3 if name == "tutorial" else 16
                    sleep(PAUSE)
                    moments = workers[name].ask("generate", prompts, n_new)
                    seconds[task.name][name].append(task.seconds(moments))
    limits = statistics.median(bandwidth), statistics.median(arithmetic)
    results: dict[str, Any] = {
        "bandwidth": {"unit": "GB/s", "limit": summary([value / 1e9 for value in bandwidth])},
        "arithmetic": {"unit": "GFLOP/s", "limit": summary([value / 1e9 for value in arithmetic])},
    }
    for task in tasks:
        row = compare(task.unit, seconds[task.name], task.figure)
        row["of the limit"] = task.least_seconds(hparams, *limits) / statistics.median(seconds[task.name][OURS])
        results[task.name] = row
    return results


def memory(name: str, model: Path, threads: int) -> float:
    """The peak of a process that reads 1000 tokens and adds 24, in MB."""
    with Worker(name, model, threads) as worker:
        worker.ask("generate", [list(range(1000))], 24)
        return worker.ask("peak_memory") / 1e6


def loading(name: str, model: Path, threads: int) -> float:
    """Seconds that loading a model takes, without the import of the libraries."""
    with Worker(name, model, threads) as worker:
        return worker.ask("load")


def measure_tokenizers(title: str, text: str, rounds: int) -> dict[str, Any]:
    """The figures of the tokenizers that are installed, for one text."""
    names = [name for name in tokenizers.PEERS if name in (OURS, "published") or importlib.util.find_spec(name)]
    per_second = (len(text.encode()) / 1e6).__truediv__  # megabytes by seconds
    measured = tokenizers.measure(text, rounds, names)
    return {f"{title}, {state}": compare("MB/s", seconds, per_second) for state, seconds in measured.items()}


def compare(
    unit: str, values: dict[str, list[float]], figure: Callable[[float], float] = lambda value: value
) -> dict[str, Any]:
    """A row of a table: the figure of each program, and how many times better ours is than the others'.

    Args:
        unit: of the figures.
        values: what was measured of each program in each round, less being better: seconds or bytes.
        figure: makes a figure of a value.
    """
    row: dict[str, Any] = {"unit": unit}
    for name, of_one in values.items():
        row[name] = summary([figure(value) for value in of_one])
        if name != OURS:
            pairs = zip(of_one, values[OURS], strict=False)  # of the same round
            row[name][BETTER] = statistics.median(theirs / ours for theirs, ours in pairs)
    return row


def summary(values: list[float]) -> dict[str, float]:
    """The median and the spread of some rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def print_table(title: str, rows: dict[str, Any]) -> None:
    """A table in Markdown: a row for each figure, a column for each program; above it, the machine's limits."""
    print(f"### {title}\n")
    for name, row in rows.items():
        if "limit" in row:
            print(f"The machine's {name}: {show(row['limit'])} {row['unit']}\n")
    rows = {name: row for name, row in rows.items() if "limit" not in row}
    columns = [*dict.fromkeys(name for row in rows.values() for name in row if name != "unit")]
    print(f"| | unit | {' | '.join(columns)} |\n|---|---|{'---:|' * len(columns)}")
    for name, row in rows.items():
        print(f"| {name} | {row['unit']} | {' | '.join(show(row.get(column)) for column in columns)} |")
    print(flush=True)


def show(cell: dict[str, float] | float | None) -> str:
    """A share, or a median with its spread and, for a peer, how many times better ours is."""
    if cell is None:
        return ""
    if not isinstance(cell, dict):
        return f"{cell:.0%}"

    def digits(value: float) -> str:
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"

    text = digits(cell["median"])
    if cell["low"] != cell["high"]:
        text += f" ({digits(cell['low'])}–{digits(cell['high'])})"
    return text + (f" **{cell[BETTER]:.2f}×**" if BETTER in cell else "")


if __name__ == "__main__":
    sys.exit(main())
