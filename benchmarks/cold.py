"""Cold start: the time from the start of a process to its first token, with the weights in the page cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from .peers import COMPUTE_TYPES, converted
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

# What the documentation of CTranslate2 teaches
CTRANSLATE2 = """
import sys
import ctranslate2
import transformers

generator = ctranslate2.Generator(sys.argv[3], compute_type=sys.argv[4])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode(sys.argv[2]))
results = generator.generate_batch([tokens], max_length=1, sampling_topk=1, include_prompt_in_result=False)
print(tokenizer.decode(results[0].sequences_ids[0]), flush=True)
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """The command of each program. Both print one token and a line end."""
    ours = ["-m", "numpy_gpt2", PROMPT, "--model", str(folder), "--greedy", "--max-new-tokens", "1"]
    return {
        "numpy_gpt2": [sys.executable, *ours],
        "transformers": [sys.executable, "-c", TRANSFORMERS, str(folder), PROMPT],
        **{
            name: [sys.executable, "-c", CTRANSLATE2, str(folder), PROMPT, str(converted(folder, its_type)), its_type]
            for name, its_type in COMPUTE_TYPES.items()
        },
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
