"""How `tiny` was made, `docs/tiny`: the commands run, and the records belong to the model in the package."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numpy_gpt2
from numpy_gpt2 import GPT2
from numpy_gpt2.inside import experiments, tables

DOCS = Path(__file__).parent.parent.parent / "docs"
MAKE = DOCS / "tiny" / "make.sh"
SMALL = "--steps 2 --batch-size 1 --window 16 --n-layer 1 --n-head 1 --n-embd 8 --n-ctx 16 --evaluate-every 9".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts of enough different words for the vocabulary of tiny."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(2000)]
    for name, n in ("train", 3000), ("more", 3000), ("valid", 200):
        (folder / f"{name}.txt").write_text(" ".join(rng.choices(words, k=n)))
    return folder


def make(corpus: Path, output: Path, *options: str) -> str:
    """Runs make.sh, and returns what it prints as errors."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["sh", str(MAKE), str(corpus), str(output), *options]
    return subprocess.run(
        command, env={**os.environ, "PATH": path}, cwd=DOCS.parent, capture_output=True, text=True, check=True
    ).stderr


@pytest.mark.skipif(os.name == "nt", reason="make.sh needs a POSIX shell")
def test_the_commands_make_a_model_and_go_on_after_a_stop(corpus: Path, tmp_path: Path) -> None:
    make(corpus, tmp_path, *SMALL)
    files = {"config.json", "encoder.json", "hparams.json", "model.safetensors", "vocab.bpe"}
    assert {file.name for file in (tmp_path / "tiny").iterdir()} == files
    once = numpy_gpt2.load(tmp_path / "tiny")
    assert once.hparams == (4096, 16, 8, 1, 1)
    assert once.tokenizer
    assert once.tokenizer.decode(once.tokenizer.encode("The king")) == "The king"
    make(corpus, tmp_path, "--resume", "--steps", "3")
    again = numpy_gpt2.load(tmp_path / "tiny")
    assert len((tmp_path / "model" / "training.jsonl").read_text().splitlines()) > 3
    assert not np.array_equal(once.params.wte, again.params.wte)


def test_the_log_belongs_to_the_commands(tiny: GPT2) -> None:
    lines = [json.loads(line) for line in (DOCS / "tiny" / "training.jsonl").read_text().splitlines()]
    words = MAKE.read_text().split()
    options = {word: words[i + 1] for i, word in enumerate(words) if word.startswith("--")}
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 1 + int(options["--steps"])))
    assert {line["n_tokens"] for line in steps} == {int(options["--batch-size"]) * int(options["--n-ctx"])}
    assert max(line["learning_rate"] for line in steps) == float(options["--learning-rate"])
    shape = tuple(int(options[f"--{name}"]) for name in ("size", "n-ctx", "n-embd", "n-head", "n-layer"))
    assert tiny.hparams == shape


def test_the_last_record_is_of_the_model_in_the_package(tiny: GPT2) -> None:
    heads = json.loads((DOCS / "tiny" / "heads.json").read_text())
    scores = experiments.head_scores(tiny, heads["text"])
    np.testing.assert_allclose(heads["previous"][-1], scores.previous, rtol=0, atol=2e-3)
    np.testing.assert_allclose(heads["induction"][-1], scores.induction, rtol=0, atol=2e-3)
    weights = tables.attention_weights(tiny, heads["text"])
    n = len(heads["weights"][-1][0][0])
    np.testing.assert_allclose(heads["weights"][-1], weights[:, :, :n, :n], rtol=0, atol=2e-3)
    assert len(heads["steps"]) == len(heads["tales"]) == len(heads["weights"]) == len(heads["previous"])
    assert heads["steps"] == sorted({*heads["steps"]})
