"""Cold start: the time from the start of a process to its first token, with the weights in the page cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from .worker import environment

PROMPT = "Once upon a time"

# What a user of transformers would write
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
inputs = tokenizer(sys.argv[2], return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
print(tokenizer.decode(ids[0, inputs.input_ids.shape[1]:]), flush=True)
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each program. Both print one token and a line end."""
    ours = ["-m", "numpy_gpt2", PROMPT, "--model", str(folder), "--greedy", "--max-new-tokens", "1"]
    return {
        "numpy_gpt2": [sys.executable, *ours],
        "transformers": [sys.executable, "-c", TRANSFORMERS, str(folder), PROMPT],
    }


def first_token(name: str, command: list[str], threads: int) -> tuple[float, str]:
    """The seconds until a command writes its first byte, and its whole output.

    Raises:
        RuntimeError: the command writes nothing.
    """
    its_environment = environment(threads)
    its_environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages come with bytecode
    start = perf_counter()
    with subprocess.Popen(
        command, env=its_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout
        byte = process.stdout.read(1)
        seconds = perf_counter() - start
        rest, complaint = process.communicate()
    if not byte:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["it wrote nothing"]
        raise RuntimeError(f"the cold start of {name} could not be measured: {lines[-1]}")
    return seconds, (byte + rest).decode(errors="replace")
