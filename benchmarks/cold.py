"""Cold start: from the start of a process to its first output, with the weights in the page cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from numpy_gpt2.model_options import THREADS

PROMPT = "Once upon a time"

# What a user of transformers would write.
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
inputs = tokenizer(sys.argv[2], return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)[0]), flush=True)
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """What is run for each peer."""
    ours = ["-m", "numpy_gpt2", PROMPT, "--model", str(folder), "--greedy", "--max-new-tokens", "1", "--full-text"]
    return {
        "numpy_gpt2": [sys.executable, *ours],
        "transformers": [sys.executable, "-c", TRANSFORMERS, str(folder), PROMPT],
    }


def first_output(command: list[str], threads: int) -> float:
    """Seconds until a command writes its first byte.

    Raises:
        RuntimeError: it writes none.
    """
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    start = perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        byte = process.stdout.read(1)
        seconds = perf_counter() - start
        process.stdout.read()
    if not byte:
        raise RuntimeError(f"nothing came from: {' '.join(command)}")
    return seconds
