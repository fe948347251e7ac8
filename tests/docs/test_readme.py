"""The commands in README.md and in docs/*.md: each of them runs as it is written."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent
PROMPTS = ["The king", "A fox"]


def commands(markdown: str) -> list[str]:
    """The indented command lines that run this package."""
    joined = markdown.replace("\\\n", " ")
    return re.findall(r"^    ((?:numpy-gpt2|python -m numpy_gpt2|echo|cat)\b.*)$", joined, re.MULTILINE)


def needs_more_than_the_package(command: str) -> bool:
    """Whether a command downloads a model, needs a GPU, or installs something."""
    words = shlex.split(command, comments=True)
    downloads = "download" in words and not {"--list", "--help", "tiny"} & {*words}
    models = [after for word, after in itertools.pairwise(words) if word in ("--model", "--from")]
    return downloads or any(model != "tiny" for model in models) or "cupy" in words or "pip" in words


FOUND = [(file, command) for file in FILES for command in commands(file.read_text(encoding="utf-8"))]
RUNNABLE = [(file, command) for file, command in FOUND if not needs_more_than_the_package(command)]
PAGE = "numpy-gpt2 page"  # runs until Ctrl-C, and opens a browser: tests/cli/test_cli_page.py


def test_commands_are_found() -> None:
    text = "\n".join(command for _, command in RUNNABLE)
    for part in ('numpy-gpt2 "', "numpy-gpt2 score", "numpy-gpt2 explore", "echo ", "-o ", "> "):
        assert part in text
    assert commands("Text\n\n    echo a | \\\n    numpy-gpt2\n    pip install x\n\n    cat x\n") == [
        "echo a |      numpy-gpt2",
        "cat x",
    ]
    excluded = ["numpy-gpt2 download gpt2", "numpy-gpt2 a --model distilgpt2", "numpy-gpt2 a --backend cupy"]
    assert all(map(needs_more_than_the_package, excluded))
    assert not any(map(needs_more_than_the_package, ["numpy-gpt2 download --list", "numpy-gpt2 a --model tiny"]))


@pytest.mark.skipif(os.name == "nt", reason="the commands are written for a POSIX shell")
@pytest.mark.parametrize(
    ("file", "command"),
    [pytest.param(*each, id=f"{each[0].name}: {each[1]}") for each in RUNNABLE if not each[1].startswith(PAGE)],
)
def test_a_command_runs(file: Path, command: str, tmp_path: Path) -> None:
    words = shlex.split(command, comments=True)
    if words[0] != "python" and not shutil.which("numpy-gpt2", path=str(BIN)):
        pytest.skip("the package is not installed, only its source is there")
    if "--print-completion" in words and not importlib.util.find_spec("shtab"):
        pytest.skip("completion needs shtab")
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    (tmp_path / "story.txt").write_text("Once upon a time there was a king.\n")
    (tmp_path / "stories.txt").write_text("Once upon a time there was a king.\n" * 50)
    shutil.copytree(ROOT / "numpy_gpt2" / "data" / "gpt2", tmp_path / "my-vocabulary")
    (tmp_path / "letter.txt").write_text("Dear king,\n")
    env = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "NUMPY_GPT2_MODELS": str(tmp_path / "models"),
    }
    if "~/" in command:
        env["HOME"] = str(tmp_path)
    first = ""  # what the command needs before it
    if "vocabulary" in words:
        shutil.rmtree(tmp_path / "my-vocabulary")
        command += " --size 260"  # as many tokens as there are in a short text
    if "train" in words:
        command += " --steps 2 --window 8 --batch-size 1"  # the last value of an option counts
        if "--resume" in words:
            first = command.replace("--resume", "--from tiny").replace("--steps 2", "--steps 1") + " && "
    written = [
        tmp_path / after.removeprefix("~/")
        for word, after in itertools.pairwise(words)
        if word in (">", "-o", "--output") and "train" not in words
    ]
    for target in written:
        target.parent.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        ["sh", "-c", first + command],
        cwd=tmp_path,
        env=env,
        input="The king\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout or ">" in words
    for target in written:
        assert target.stat().st_size > 0
        if "--json" in words and "prompts.txt" in words:
            assert [json.loads(line)["prompt"] for line in target.read_text().splitlines()] == PROMPTS
