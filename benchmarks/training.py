"""Steps of training: loss, gradients, clipping and AdamW, beside PyTorch on the same weights and the same texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from numpy_gpt2 import HParams

TINY = HParams(n_vocab=4096, n_ctx=256, n_embd=256, n_head=4, n_layer=4)  # the shape of the model in the package
OF_TINY = [(8, 256)]  # texts, and tokens of each
OF_OTHERS = [(4, 256), (1, 256)]
LEARNING_RATE, CLIP, DECAY, BETA1, BETA2 = 1e-4, 1.0, 0.1, 0.9, 0.95

# Makes a step with texts that are one token longer than what is read. Returns its seconds, and the loss before it.
Step: TypeAlias = Callable[[list[list[int]]], tuple[float, float]]


def numpy_gpt2(folder: Path) -> Step:
    """The project itself: what `training.loop.Training` does with a batch."""
    from numpy_gpt2 import load
    from numpy_gpt2.machine.threads import count_threads
    from numpy_gpt2.training.optimizer import AdamW, clip_by_global_norm
    from numpy_gpt2.training.parallel import batch_gradients

    model = load(folder, backend="numpy")
    optimizer = AdamW(model.params, beta1=BETA1, beta2=BETA2, weight_decay=DECAY)
    n_threads = count_threads() or 1

    def step(texts: list[list[int]]) -> tuple[float, float]:
        ids = np.array(texts)
        start = perf_counter()
        loss, grads = batch_gradients(ids[:, :-1], ids[:, 1:], model.params, model.hparams.n_head, n_threads)
        clip_by_global_norm(grads, CLIP, n_threads)
        optimizer.update(model.params, grads, LEARNING_RATE, n_threads)
        return perf_counter() - start, loss

    return step


def transformers(folder: Path) -> Step:
    """Hugging Face's model on PyTorch, in float32, eager, with AdamW in its fused form."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, **dropouts).train()
    matrices = [array for array in model.parameters() if array.ndim > 1]
    vectors = [array for array in model.parameters() if array.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), fused=True)

    def step(texts: list[list[int]]) -> tuple[float, float]:
        ids = torch.tensor(texts)
        start = perf_counter()
        logits = model(ids[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return perf_counter() - start, loss.item()

    return step


PROGRAMS = {"numpy_gpt2": numpy_gpt2, "transformers": transformers}
