"""A run from raw text, as the command makes it: its losses are those of a log that was committed with it.

The log is made by the two commands in `COMMANDS`.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from numpy_gpt2.cli.main import main

TALES = Path(__file__).parents[2] / "docs" / "tales.txt"
COMMITTED = Path(__file__).parent / "replay.jsonl"
FILE = shlex.quote(str(TALES))
NEW = "--vocabulary vocabulary --n-layer 2 --n-head 4 --n-embd 64 --n-ctx 64 --learning-rate 1e-2 --steps 20"
COMMANDS = f"""\
vocabulary {FILE} --size 1024 --output vocabulary
train {FILE} {NEW} --output model
"""


def losses(log: Path) -> list[float]:
    lines = map(json.loads, log.read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_twenty_steps_have_the_losses_of_the_committed_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing has changed between the text and the loss: words, merges, ids, batches, dropout, gradients, steps."""
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS.splitlines():
        assert main(shlex.split(line)) == 0
    now, then = losses(Path("model/training.jsonl")), losses(COMMITTED)
    assert len(now) == 20
    assert now == pytest.approx(then, abs=1e-4)
    assert now[-1] < now[0] - 0.5
