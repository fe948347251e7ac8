"""The programs that are compared: each continues prompts with the same weights, and says when each token was ready.

Each function imports what its program needs, and returns a function that loads a model from a folder. That
function in turn returns one that continues prompts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from numpy_gpt2.machine.backend import VARIABLE

# Continues prompts of equal length by n tokens, choosing the likeliest each time. Returns the times of the start and of
# each token, and the new tokens of each prompt, which show that all programs compute the same.
Generate: TypeAlias = Callable[[list[list[int]], int], tuple[list[float], list[list[int]]]]
Load: TypeAlias = Callable[[Path], Generate]


def numpy_gpt2() -> Load:
    """The project itself: what `GPT2.generate` does, from ids to ids."""
    from numpy_gpt2 import gpt2
    from numpy_gpt2.decoding.options import check_options
    from numpy_gpt2.decoding.prompts import start_rows
    from numpy_gpt2.generation import generate_batch

    def load(folder: Path) -> Generate:
        model = gpt2.load(folder)

        def generate(prompts: list[list[int]], n: int) -> tuple[list[float], list[list[int]]]:
            moments = [perf_counter()]
            options = check_options(max_new_tokens=n, temperature=0)
            rows = start_rows(prompts, 1, options, model.hparams, None, with_log_probabilities=False)
            for _ in generate_batch(rows, model.params, model.hparams.n_head):
                moments.append(perf_counter())
            return moments, [row.ids for row in rows]

        return generate

    return load


def transformers() -> Load:
    """Hugging Face's library on PyTorch, in float32, with its key/value cache and default settings, not compiled."""
    import torch
    import transformers
    from transformers.generation.streamers import BaseStreamer
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel  # here, so that it does not count as loading

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = "cuda" if os.environ.get(VARIABLE) == "cupy" else "cpu"
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))

    class Clock(BaseStreamer):  # type: ignore[misc]
        """Receives the prompts and then each token, and notes the time."""

        def __init__(self) -> None:
            self.moments: list[float] = []

        def put(self, value: Any) -> None:
            self.moments.append(perf_counter())

        def end(self) -> None:
            pass

    def load(folder: Path) -> Generate:
        model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        model.generation_config.eos_token_id = None  # so that no text ends early
        model.generation_config.pad_token_id = 0

        def generate(prompts: list[list[int]], n: int) -> tuple[list[float], list[list[int]]]:
            clock = Clock()
            start = perf_counter()
            ids = torch.tensor(prompts, device=device)
            mask = torch.ones_like(ids)
            made = model.generate(ids, attention_mask=mask, max_new_tokens=n, do_sample=False, streamer=clock)
            return [start, *clock.moments[1:]], made[:, ids.shape[1] :].tolist()

        return generate

    return load


def ctranslate2(compute_type: str = "float32") -> Load:
    """An inference engine in C++, with a copy of the model in its own format, made by `convert` before."""
    import ctranslate2

    def load(folder: Path) -> Generate:
        threads = int(os.environ.get("OMP_NUM_THREADS", 0))
        path = converted(folder, compute_type)
        generator = ctranslate2.Generator(str(path), compute_type=compute_type, inter_threads=1, intra_threads=threads)

        def generate(prompts: list[list[int]], n: int) -> tuple[list[float], list[list[int]]]:
            vocabulary = json.loads((path / "vocabulary.json").read_text("utf-8"))
            tokens = [[vocabulary[id] for id in prompt] for prompt in prompts]
            moments = [perf_counter()] * (n + 1)

            def note(token: Any) -> bool:
                moments[token.step + 1] = perf_counter()  # of the last text that got a token in this step
                return False

            results = generator.generate_batch(
                tokens,
                max_length=n,
                sampling_topk=1,
                include_prompt_in_result=False,  # so that it reads the prompt in one pass
                end_token=[],  # so that no text ends early
                callback=note,
            )
            return moments, [result.sequences_ids[0] for result in results]

        return generate

    return load


def converted(folder: Path, compute_type: str) -> Path:
    """The folder of a model's copy in CTranslate2's format, within the folder of the model."""
    return folder / f"ctranslate2-{compute_type}"


def convert(folder: Path, compute_type: str) -> None:
    """Makes that copy. It is there either as a whole or not at all."""
    import transformers
    from ctranslate2.converters import TransformersConverter

    transformers.logging.disable_progress_bar()
    path = converted(folder, compute_type)
    part = path.with_suffix(".part")
    TransformersConverter(str(folder)).convert(str(part), quantization=compute_type, force=True)
    part.rename(path)


def tutorial() -> Load:
    """The loop that tutorials teach: plain NumPy, one text at a time, read from its beginning for each new token."""
    import numpy_gpt2

    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def softmax(x: Any) -> Any:
        exp_x = np.exp(x - np.max(x, axis=-1, keepdims=True))
        return exp_x / np.sum(exp_x, axis=-1, keepdims=True)

    def layer_norm(x: Any, g: Any, b: Any) -> Any:
        mean = np.mean(x, axis=-1, keepdims=True)
        variance = np.var(x, axis=-1, keepdims=True)
        return g * (x - mean) / np.sqrt(variance + 1e-5) + b

    def attention(x: Any, p: Any, n_head: int) -> Any:
        q, k, v = np.split(x @ p.c_attn.w + p.c_attn.b, 3, axis=-1)
        heads = zip(*(np.split(part, n_head, axis=-1) for part in (q, k, v)), strict=True)
        mask = (1 - np.tri(len(x), dtype=x.dtype)) * -1e10
        out = [softmax(q @ k.T / math.sqrt(q.shape[-1]) + mask) @ v for q, k, v in heads]
        return np.hstack(out) @ p.c_proj.w + p.c_proj.b

    def load(folder: Path) -> Generate:
        model = numpy_gpt2.load(folder, backend="numpy")
        params, n_head = model.params, model.hparams.n_head

        def logits(ids: list[int]) -> Any:
            x = params.wte[ids] + params.wpe[: len(ids)]
            for p in params.h:
                x = x + attention(layer_norm(x, *p.ln_1), p.attn, n_head)
                x = x + gelu(layer_norm(x, *p.ln_2) @ p.mlp.c_fc.w + p.mlp.c_fc.b) @ p.mlp.c_proj.w + p.mlp.c_proj.b
            return layer_norm(x, *params.ln_f) @ params.wte.T

        def generate(prompts: list[list[int]], n: int) -> tuple[list[float], list[list[int]]]:
            texts = [list(prompt) for prompt in prompts]
            moments = [perf_counter()]
            for _ in range(n):
                for ids in texts:
                    ids.append(int(np.argmax(logits(ids)[-1])))
                moments.append(perf_counter())
            return moments, [ids[len(prompt) :] for ids, prompt in zip(texts, prompts, strict=True)]

        return generate

    return load


PEERS: dict[str, Callable[[], Load]] = {
    "numpy_gpt2": numpy_gpt2,
    "transformers": transformers,
    "ctranslate2": ctranslate2,
    "ctranslate2-int8": partial(ctranslate2, "int8"),
    "tutorial": tutorial,
}
COMPUTE_TYPES = {"ctranslate2": "float32", "ctranslate2-int8": "int8"}  # programs that need a converted model
INEXACT = {"ctranslate2-int8"}  # its weights are rounded to 8 bits, so it may come to other tokens
NEEDS = {  # packages to be installed
    "numpy_gpt2": (),
    "transformers": ("torch", "transformers"),
    **dict.fromkeys(COMPUTE_TYPES, ("ctranslate2", "torch", "transformers")),
    "tutorial": (),
}
