"""The benchmark: `python -m benchmarks`. Prints tables as it goes, and writes all figures to a JSON file.

All programs have the same random weights and the same number of threads, each in a process of its own. In
each round, each does each task once, in a random order; the machine's own limits are measured in each round
as well. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

from numpy_gpt2 import HParams, init, save
from numpy_gpt2.params import number_of_params

from . import cold, tokenizers
from .peers import PEERS
from .worker import Worker

SIZES = {
    "124M": HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
}
OURS = "numpy_gpt2"
PAUSE = 0.1  # seconds, in which the threads of the one before go to sleep


class Task(NamedTuple):
    """Prompts to continue, and what of it is measured."""

    name: str
    n_batch: int
    n_prompt: int
    unit: str  # ms/token, ms (to the first token) or tokens/s

    def seconds(self, moments: list[float]) -> float:
        """From a prompt to the first token, or from one step to the next."""
        steps = [after - before for before, after in itertools.pairwise(moments)]
        return steps[0] if self.unit == "ms" else statistics.median(steps[1:])

    def figure(self, seconds: float) -> float:
        """The figure in its unit."""
        return self.n_batch / seconds if self.unit == "tokens/s" else 1000 * seconds


TOKENS = [Task(f"one token, at a context of {n}", 1, n, "ms/token") for n in (16, 256, 1000)]
PROMPTS = [Task(f"a prompt of {n} tokens", 1, n, "ms") for n in (16, 128, 512, 1000)]
BATCHES = [Task(f"a batch of {n}", n, 16, "tokens/s") for n in (1, 5, 16)]


class Cell(NamedTuple):
    """One figure of a table."""

    median: float
    low: float
    high: float


def summary(values: list[float]) -> Cell:
    """The median and the spread of some rounds."""
    return Cell(statistics.median(values), min(values), max(values))


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure numpy_gpt2 beside what people would use instead."
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["124M"], choices=SIZES, help="the models' shapes (default: 124M)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for each program (default: all)")
    parser.add_argument("--peers", nargs="*", default=["transformers", "tutorial"], choices=[*PEERS][1:])
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["tokens", "prompts", "batches", "memory", "load", "cold", "tokenizer"],
        choices=["tokens", "prompts", "batches", "memory", "load", "cold", "tokenizer"],
        help="what is measured (default: all of it)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="how often (default: 7)")
    parser.add_argument("--corpus", type=Path, help="a text file, of which the tokenizers read the first 4 MB")
    parser.add_argument("--models", type=Path, help="a folder in which the random models stay for the next time")
    parser.add_argument("--json", type=Path, default=Path("benchmark.json"), help="default: %(default)s")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the options ask for."""
    args = parser().parse_args(arguments)
    peers = [peer for peer in args.peers if peer not in ("transformers",) or importlib.util.find_spec(peer)]
    if missing := {*args.peers} - {*peers}:
        print(f"not installed, and so not measured: {', '.join(sorted(missing))}\n", file=sys.stderr)
    results: dict[str, Any] = {"machine": machine(args.threads)}
    print(" · ".join(f"{key} {value}" for key, value in results["machine"].items()) + "\n")
    with folder_of_models(args.models) as folder:
        for size in args.sizes:
            model = folder / size
            if not (model / "model.safetensors").exists():
                print(f"making a random model of the {size} shape ...", file=sys.stderr)
                save(init(SIZES[size]), model)
            results[size] = measure_size(size, model, peers, args)
    if "tokenizer" in args.tasks:
        results["tokenizer"] = measure_tokenizers(args.corpus, args.rounds)
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"all figures are in {args.json}", file=sys.stderr)


def machine(threads: int) -> dict[str, str]:
    """What the figures were taken on."""
    names = [
        name for name in ("numpy", "torch", "transformers", "tiktoken", "tokenizers") if importlib.util.find_spec(name)
    ]
    return {
        "processor": processor(),
        "threads": str(threads),
        "Python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextmanager
def folder_of_models(kept: Path | None) -> Iterator[Path]:
    """The folder that the models are in, for good or for as long as this runs."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def working(name: str, model: Path, threads: int) -> Iterator[Worker]:
    """A worker, which ends when it is not needed any more."""
    worker = Worker(name, model, threads)
    try:
        yield worker
    finally:
        worker.close()


def measure_size(size: str, model: Path, peers: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    groups = {"tokens": TOKENS, "prompts": PROMPTS, "batches": BATCHES}
    tasks = [task for name, group in groups.items() if name in args.tasks for task in group]
    results: dict[str, Any] = {}
    if tasks:
        results |= measure_tasks(size, model, [OURS, *peers], tasks, args)
    both = [OURS, *(peer for peer in peers if peer == "transformers")]
    if "memory" in args.tasks:
        results["peak memory, after a prompt of 1000"] = compare(
            "MB", {peer: [memory(peer, model, args.threads)] for peer in both}
        )
    if "load" in args.tasks:
        seconds: dict[str, list[float]] = {peer: [] for peer in both}
        for _ in range(3):
            for peer in both:
                with working(peer, model, args.threads) as worker:
                    seconds[peer].append(worker.ask("load"))
        results["loading"] = compare("s", seconds)
    if "cold" in args.tasks:
        commands = {peer: command for peer, command in cold.commands(model).items() if peer in both}
        seconds = {peer: [] for peer in commands}
        for turn in range(args.rounds + 1):
            for peer, command in commands.items():
                duration = cold.first_output(command, args.threads)
                if turn:  # the first time brings everything into memory
                    seconds[peer].append(duration)
        results["cold start to the first token"] = compare("s", seconds)
    print_table(size, results, [OURS, *peers])
    return results


def measure_tasks(
    size: str, model: Path, names: list[str], tasks: list[Task], args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of tasks, with their ratios to those of the peers, and their share of the machine's limit."""
    rng = random.Random(0)
    seconds: dict[tuple[str, str], list[float]] = {}
    bandwidth: list[float] = []
    arithmetic: list[float] = []
    workers = {name: Worker(name, model, args.threads) for name in [*names, "limits"]}
    try:
        for name in names:
            workers[name].ask("generate", [[0] * 16], 3)  # the first pass brings the weights in
        for turn in range(args.rounds):
            bandwidth.append(workers["limits"].ask("bandwidth"))
            arithmetic.append(workers["limits"].ask("arithmetic"))
            for task in tasks:
                prompts = [[rng.randrange(50257) for _ in range(task.n_prompt)] for _ in range(task.n_batch)]
                for name in rng.sample(names, len(names)):
                    if name == "tutorial" and turn:
                        continue  # it takes minutes, and is far away: once is enough
                    n_tokens = 1 if task.unit == "ms" else 3 if name == "tutorial" else 16
                    sleep(PAUSE)
                    moments = workers[name].ask("generate", prompts, n_tokens)
                    seconds.setdefault((task.name, name), []).append(task.seconds(moments))
    finally:
        for worker in workers.values():
            worker.close()
    results: dict[str, Any] = {
        "limits": {
            "bandwidth, GB/s": summary([b / 1e9 for b in bandwidth])._asdict(),
            "arithmetic, GFLOP/s": summary([a / 1e9 for a in arithmetic])._asdict(),
        }
    }
    hparams = SIZES[size]
    for task in tasks:
        of_all = {name: seconds[task.name, name] for name in names}
        results[task.name] = compare(task.unit, of_all, task.figure)
        ours = statistics.median(of_all[OURS])
        if task.unit == "ms":
            blocks = number_of_params(hparams) - hparams.n_embd * (hparams.n_vocab + hparams.n_ctx)
            operations = 2 * (task.n_prompt * blocks + hparams.n_vocab * hparams.n_embd)
            results[task.name]["share"] = operations / statistics.median(arithmetic) / ours
        else:
            read = 4 * (number_of_params(hparams) - hparams.n_ctx * hparams.n_embd)
            results[task.name]["share"] = read / statistics.median(bandwidth) / ours
    return results


def compare(unit: str, values: dict[str, list[float]], figure: Any = lambda value: value) -> dict[str, Any]:
    """The figures of all programs, and by how much ours is better (above 1) or worse than each other one's."""
    found: dict[str, Any] = {"unit": unit}
    for name, of_one in values.items():
        found[name] = summary([figure(value) for value in of_one])._asdict()
        if name != OURS:
            pairs = zip(of_one, values[OURS], strict=False)
            found[name]["ours is better by"] = statistics.median(theirs / ours for theirs, ours in pairs)
    return found


def memory(name: str, model: Path, threads: int) -> float:
    """The peak of a process that reads 1000 tokens and adds 24, in MB."""
    with working(name, model, threads) as worker:
        worker.ask("generate", [[i % 50257 for i in range(1000)]], 24 if name != "tutorial" else 1)
        return worker.ask("peak_memory") / 1e6


def measure_tokenizers(corpus: Path | None, rounds: int) -> dict[str, Any]:
    """The figures of the tokenizers that are installed."""
    names = [name for name in tokenizers.PEERS if name in (OURS, "published") or importlib.util.find_spec(name)]
    results: dict[str, Any] = {}
    for title, text in tokenizers.texts(corpus).items():
        speeds = tokenizers.measure(text, rounds, names)
        for state in "cold", "warm":
            seconds = {name: [1 / speed for speed in speeds[name][state]] for name in names}
            results[f"{title}, {state}"] = compare("MB/s", seconds, lambda value: 1 / value)
    print_table("tokenizer", results, names)
    return results


def print_table(title: str, results: dict[str, Any], names: list[str]) -> None:
    """A table in Markdown: a row for each figure, a column for each program."""
    print(f"### {title}\n")
    for limit, cell in results.get("limits", {}).items():
        print(f"The machine's {limit}: {cell['median']:.1f} ({cell['low']:.1f} to {cell['high']:.1f})\n")
    shares = any("share" in row for row in results.values())
    print("| | unit |", " | ".join(names), "| of the limit |" if shares else "|")
    print("|---|---|" + "---:|" * (len(names) + shares))
    for name, row in results.items():
        if name != "limits":
            cells = [show(row[peer]) if peer in row else "" for peer in names]
            share = [f"{row['share']:.0%}" if "share" in row else ""] if shares else []
            print(f"| {name} | {row['unit']} |", " | ".join([*cells, *share]), "|")
    print(flush=True)


def show(cell: dict[str, float]) -> str:
    """A median with its spread and, for a peer, by how much ours is better."""
    text = f"{cell['median']:.3g}" if cell["median"] < 100 else f"{cell['median']:.0f}"
    if cell["low"] != cell["high"]:
        digits = ".3g" if cell["median"] < 100 else ".0f"
        text += f" ({cell['low']:{digits}}–{cell['high']:{digits}})"
    return text + (f" **{cell['ours is better by']:.2f}×**" if "ours is better by" in cell else "")


if __name__ == "__main__":
    main()
