"""The benchmark: `python -m benchmarks` prints tables as it goes and writes all figures to a JSON file.

All programs get the same random weights and the same number of threads, and each runs in its own process. In each
round, the limits of the machine are measured first. Then every program does every task once, in random order.
Figures are medians over the rounds. The peak memory and the tutorial's loop, which takes minutes, are measured
only once. The tokenizers take turns in one process.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_info

from numpy_gpt2 import HParams
from numpy_gpt2.machine.backend import BACKENDS, VARIABLE, choose_backend
from numpy_gpt2.machine.files import write_atomically
from numpy_gpt2.params import count_params
from numpy_gpt2.weights.config import read_hparams

from . import cold, speculation, tokenizers, training
from .peers import COMPUTE_TYPES, INEXACT, NEEDS, PEERS, convert, converted
from .worker import TRAINING, Worker, save_random

SIZES = {
    "124M": HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
}
TASKS = ["tokens", "prompts", "batches", "memory", "load", "cold", "speculation", "training", "tokenizer"]
ON_GPU = ["tokens", "prompts", "batches", "load"]  # the other tasks measure main memory and the processor
OURS = "numpy_gpt2"
ON_CPU_ONLY = {*COMPUTE_TYPES}  # programs that this benchmark does not start on a GPU
WITHOUT = "without drafts"
PAUSE = 0.1  # seconds, for the threads of the previous program to go idle
BETTER = "ours is better by"


class Task(NamedTuple):
    """Prompts to continue, and what to measure."""

    name: str
    n_batch: int
    n_prompt: int
    unit: str  # ms/token and tokens/s: from one token to the next; ms: from the prompt to the first token

    def seconds(self, moments: list[float]) -> float:
        """The measured time, given the times of the start and of each token."""
        steps = [after - before for before, after in itertools.pairwise(moments)]
        return steps[0] if self.unit == "ms" else statistics.median(steps[1:])

    def figure(self, seconds: float) -> float:
        """The same in the task's unit."""
        return self.n_batch / seconds if self.unit == "tokens/s" else 1000 * seconds

    def least_seconds(self, hparams: HParams, bandwidth: float, arithmetic: float) -> float:
        """The least time that the machine needs, either to read all weights and the past once or for the arithmetic.

        Args:
            hparams: the model.
            bandwidth: bytes per second.
            arithmetic: floating-point operations per second.
        """
        n_vocab, n_ctx, n_embd, _, n_layer = hparams
        n_new = self.n_prompt if self.unit == "ms" else 1  # tokens of each text that are read
        n_past = self.n_prompt - n_new
        of_blocks = count_params(hparams) - n_embd * (n_vocab + n_ctx)
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


def parser(sizes: Mapping[str, HParams]) -> argparse.ArgumentParser:
    """The options, given the shapes of models by name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare numpy_gpt2 with the programs that people would use instead."
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number: dict[str, Any] = {"type": positive, "metavar": "N"}
    parser.add_argument(
        "--sizes", nargs="+", default=["124M"], choices=sizes, help="shapes of the models (default: 124M)"
    )
    parser.add_argument(
        "--threads", default=cores, help="threads of each program (default: all, %(default)s)", **number
    )
    peers = [peer for peer in PEERS if peer != OURS]
    parser.add_argument(
        "--peers",
        nargs="*",
        default=peers,
        choices=peers,
        help="programs to compare with (default: all that are installed)",
    )
    parser.add_argument(
        "--tasks", nargs="+", default=TASKS, choices=TASKS, help="what to measure (default: everything)"
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="cupy: on a GPU, with transformers on the same GPU (default: NUMPY_GPT2_BACKEND, or numpy)",
    )
    parser.add_argument("--rounds", default=5, help="figures are medians of N rounds (default: %(default)s)", **number)
    parser.add_argument(
        "--corpus",
        type=Path,
        help="a text file for the tokenizers, which read its first 4 MB, and for speculation (default: tales by tiny)",
    )
    parser.add_argument("--models", type=Path, help="a folder to keep the random models in for the next run")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmark.json"),
        help="the file to write all figures to (default: %(default)s)",
    )
    return parser


def positive(text: str) -> int:
    """A whole number from the command line, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None, sizes: Mapping[str, HParams] = SIZES) -> int:
    """Measures what the options ask for, and returns the exit status."""
    args = parser(sizes).parse_args(arguments)
    try:
        run(args, sizes)
    except KeyboardInterrupt:
        print(f"interrupted; the figures so far are in {args.json}", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace, sizes: Mapping[str, HParams]) -> None:
    """Measures what the options ask for. The figures so far are in the file even if a later measurement fails.

    Raises:
        ImportError: the backend does not work on this machine.
        OSError: a file cannot be read or written.
        RuntimeError: a program could not be measured.
    """
    os.environ[VARIABLE] = choose_backend(args.backend)  # for the measured processes
    if os.environ[VARIABLE] == "cupy":
        leave_out_what_needs_the_processor(args)
    texts = tokenizers.texts(args.corpus) if "tokenizer" in args.tasks else {}
    peers = [peer for peer in args.peers if all(map(importlib.util.find_spec, NEEDS[peer]))]
    if missing := {*args.peers} - {*peers}:
        print(f"not measured, since they are not installed: {', '.join(sorted(missing))}", file=sys.stderr)
    tales = speculation.tales(args.corpus) if "speculation" in args.tasks else ""
    results: dict[str, Any] = {"machine": machine(args.threads), "rounds": args.rounds}

    @contextmanager
    def table(title: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Saves the rows of a table in the file as they are measured, and prints the table at the end."""
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
        if "training" in args.tasks:
            make_model(folder / "tiny", training.TINY)
            with table("tiny, training") as keep:
                keep(measure_training(training.TINY, folder / "tiny", training.OF_TINY, peers, args))
        for size in args.sizes if {*args.tasks} - {"tokenizer"} else ():
            make_model(folder / size, sizes[size])
            if {*args.tasks} - {"tokenizer", "speculation", "training"}:
                make_copies(folder / size, peers)
                with table(size) as keep:
                    for rows in measure_size(sizes[size], folder / size, peers, args):
                        keep(rows)
            if "training" in args.tasks:
                with table(f"{size}, training") as keep:
                    keep(measure_training(sizes[size], folder / size, training.OF_OTHERS, peers, args))
            if tales:
                make_model(speculation.assistant_folder(folder / size), speculation.assistant_shape(sizes[size]))
                with table(f"{size}, speculation") as keep:
                    keep(measure_speculation(folder / size, tales, args))
    if texts:
        with table("tokenizer") as keep:
            for title, text in texts.items():
                keep(measure_tokenizers(title, text, args.rounds))
    print(f"all figures are in {args.json}", file=sys.stderr)


def leave_out_what_needs_the_processor(args: argparse.Namespace) -> None:
    """Leaves out the tasks and programs that are not for a GPU, with a word."""
    if dropped := [*({*args.tasks} - {*ON_GPU}), *({*args.peers} & ON_CPU_ONLY)]:
        print(f"not measured on a GPU: {', '.join(sorted(dropped))}", file=sys.stderr)
    args.tasks = [task for task in args.tasks if task in ON_GPU]
    args.peers = [peer for peer in args.peers if peer not in ON_CPU_ONLY]


def machine(threads: int) -> dict[str, str]:
    """The machine and the software that the figures are for."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = ("numpy", "torch", "transformers", "ctranslate2", "tiktoken", "tokenizers")
    kernels = [library["architecture"] for library in threadpool_info() if "architecture" in library]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        **({"GPU": gpu()} if os.environ[VARIABLE] == "cupy" else {}),
        "threads": str(threads),
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in packages if importlib.util.find_spec(name)},
        "BLAS": " ".join([blas["name"], blas["version"], *kernels[:1]]),
    }


def processor() -> str:
    """The name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu() -> str:
    """The name of the GPU."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


@contextmanager
def folder_of_models(kept: Path | None) -> Iterator[Path]:
    """The folder for the models: the given one, or a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def make_model(folder: Path, hparams: HParams) -> None:
    """Saves a random model, unless it exists already.

    Raises:
        RuntimeError: the model cannot be saved, or the folder holds a model of another shape.
    """
    if (folder / "model.safetensors").exists():
        if read_hparams(folder) != hparams:
            raise RuntimeError(f"{folder} holds a model of another shape: give --models another folder")
        return
    print(f"making a random model in {folder} ...", file=sys.stderr)
    if not succeeds(save_random, folder, tuple(hparams)):
        raise RuntimeError(f"the model could not be saved in {folder}")


def make_copies(folder: Path, peers: list[str]) -> None:
    """Saves a copy of the model for each program that needs another format, unless it exists already.

    Raises:
        RuntimeError: the model cannot be converted.
    """
    for peer in COMPUTE_TYPES.keys() & {*peers}:
        if not converted(folder, COMPUTE_TYPES[peer]).exists() and not succeeds(convert, folder, COMPUTE_TYPES[peer]):
            raise RuntimeError(f"the model in {folder} could not be converted for {peer}")


def succeeds(action: Callable[..., None], *arguments: Any) -> bool:
    """Whether an action succeeds in a process of its own, so that this one stays small."""
    process = multiprocessing.get_context("spawn").Process(target=action, args=arguments)
    process.start()
    process.join()
    return process.exitcode == 0


def measure_size(hparams: HParams, model: Path, peers: list[str], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All figures of one model, group by group."""
    tasks = [task for name, group in GROUPS.items() if name in args.tasks for task in group]
    if tasks:
        yield measure_tasks(hparams, model, [OURS, *peers], tasks, args)
    names = [OURS, *(peer for peer in peers if peer != "tutorial")]
    if "memory" in args.tasks and not Path("/proc/self/status").exists():
        print("peak memory not measured: only Linux reports it", file=sys.stderr)
    elif "memory" in args.tasks:
        peaks = {name: [memory(name, model, args.threads)] for name in names}
        yield {"peak memory, with a prompt of 1000": compare("MB", peaks)}
    if "load" in args.tasks:
        seconds = in_turn(names, args.rounds, lambda name: loading(name, model, args.threads))
        yield {"loading": compare("s", seconds)}
    if "cold" in args.tasks:
        commands = cold.commands(model)
        for name in names:
            cold.first_token(name, commands[name], args.threads)  # brings all files into memory
        seconds = in_turn(names, args.rounds, lambda name: cold.first_token(name, commands[name], args.threads)[0])
        yield {"cold start, to the first token": compare("s", seconds)}


def in_turn(names: list[str], rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """The measurements of each program, one per round. In each round, the programs take turns in random order."""
    rng = random.Random(0)
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            values[name].append(measure(name))
    return values


def measure_tasks(
    hparams: HParams, model: Path, names: list[str], tasks: list[Task], args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of the tasks, and the share of this package's time that the limits of the machine account for."""
    rng = random.Random(0)
    seconds: dict[str, dict[str, list[float]]] = {task.name: {name: [] for name in names} for task in tasks}
    bandwidth: list[float] = []
    arithmetic: list[float] = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, model, args.threads)) for name in [*names, "limits"]}
        for name in names:
            workers[name].ask("generate", [[0] * 16], 3)  # the first pass brings the weights into memory
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


def measure_speculation(model: Path, tales: str, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of texts that are written with drafts and without. Each round has other texts."""
    rng = random.Random(0)
    seconds: dict[str, dict[str, list[float]]] = {}
    with Worker("speculation", model, args.threads) as worker:
        worker.ask("write", [0] * 16, [0] * 3, "assistant")  # the first pass brings the weights into memory
        for _ in range(args.rounds):
            for title, (prompt, continuation, drafter) in speculation.tasks(tales, rng).items():
                of_each = seconds.setdefault(title, {OURS: [], WITHOUT: []})
                for name in rng.sample([OURS, WITHOUT], 2):
                    sleep(PAUSE)
                    moments = worker.ask("write", prompt, continuation, drafter if name == OURS else None)
                    of_each[name].append((moments[-1] - moments[0]) / (len(moments) - 1))
    return {title: compare("tokens/s", of_each, lambda each: 1 / each) for title, of_each in seconds.items()}


def measure_training(
    hparams: HParams, model: Path, tasks: list[tuple[int, int]], peers: list[str], args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of steps of training. Each round has other texts, the same for all programs."""
    rng = random.Random(0)
    names = [name for name in (OURS, *peers) if name in training.PROGRAMS]
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(TRAINING + name, model, args.threads)) for name in names}
        for n_batch, n_seq in tasks:
            seconds: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(args.rounds + 1):
                texts = [[rng.randrange(hparams.n_vocab) for _ in range(n_seq + 1)] for _ in range(n_batch)]
                for name in rng.sample(names, len(names)):
                    sleep(PAUSE)
                    of_step, _ = workers[name].ask("step", texts)
                    if turn:  # the first step brings the weights into memory
                        seconds[name].append(of_step)
            rows[f"a step, {n_batch} x {n_seq} tokens"] = compare("s", seconds)
    return rows


def memory(name: str, model: Path, threads: int) -> float:
    """The peak memory, in MB, of a process that reads 1000 tokens and adds 24."""
    with Worker(name, model, threads) as worker:
        worker.ask("generate", [list(range(1000))], 24)
        return worker.ask("peak_memory") / 1e6


def loading(name: str, model: Path, threads: int) -> float:
    """The time in seconds to load a model, without importing the libraries."""
    with Worker(name, model, threads) as worker:
        return worker.ask("load")


def measure_tokenizers(title: str, text: str, rounds: int) -> dict[str, Any]:
    """The figures of the installed tokenizers for one text."""
    names = [name for name in tokenizers.PEERS if name in (OURS, "published") or importlib.util.find_spec(name)]
    per_second = (len(text.encode()) / 1e6).__truediv__  # megabytes divided by seconds
    measured = tokenizers.measure(text, rounds, names)
    return {f"{title}, {state}": compare("MB/s", seconds, per_second) for state, seconds in measured.items()}


def compare(
    unit: str, values: dict[str, list[float]], figure: Callable[[float], float] = lambda value: value
) -> dict[str, Any]:
    """A row of a table: the figure of each program, and by which factor numpy_gpt2 is better than it.

    Args:
        unit: of the figures.
        values: the measurements of each program, one per round, where less is better: seconds or bytes.
        figure: turns a measurement into a figure.
    """
    row: dict[str, Any] = {"unit": unit}
    for name, of_one in values.items():
        row[name] = summary([figure(value) for value in of_one])
        if name != OURS:
            pairs = zip(of_one, values[OURS], strict=False)  # of the same round
            row[name][BETTER] = statistics.median(theirs / ours for theirs, ours in pairs)
    return row


def summary(values: list[float]) -> dict[str, float]:
    """The median and the range of the rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def print_table(title: str, rows: dict[str, Any]) -> None:
    """Prints a table in Markdown with a column for each program, below the limits of the machine."""
    print(f"### {title}\n")
    for name, row in rows.items():
        if "limit" in row:
            print(f"The machine's {name}: {show(row['limit'])} {row['unit']}\n")
    rows = {name: row for name, row in rows.items() if "limit" not in row}
    columns = [*dict.fromkeys(name for row in rows.values() for name in row if name != "unit")]
    headings = [f"{name} (not exact)" if name in INEXACT else name for name in columns]
    print(f"| | unit | {' | '.join(headings)} |\n|---|---|{'---:|' * len(columns)}")
    for name, row in rows.items():
        print(f"| {name} | {row['unit']} | {' | '.join(show(row.get(column)) for column in columns)} |")
    print(flush=True)


def show(cell: dict[str, float] | float | None) -> str:
    """A share, or a median with its range and, for a peer, the factor by which numpy_gpt2 is better."""
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
