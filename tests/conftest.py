"""What several test files need: models with every parameter random, and the same in PyTorch and as if on a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # tests reach no network

import device_array
import numpy as np
import numpy.typing as npt
import pytest
from browsing import browser, models_dir, page, served, window  # noqa: F401 (fixtures)
from device_array import DeviceArray

import numpy_gpt2
from numpy_gpt2 import model
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.generation import generate_batch
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, build, named_arrays
from numpy_gpt2.weights.folder import hugging_face_name

# Odd on purpose: where two sizes are equal, mixing them up goes unnoticed.
SHAPES = [
    HParams(n_vocab=300, n_ctx=7, n_embd=48, n_head=3, n_layer=2),
    HParams(n_vocab=11, n_ctx=40, n_embd=10, n_head=5, n_layer=3),
    HParams(n_vocab=64, n_ctx=16, n_embd=32, n_head=1, n_layer=1),
]
DTYPES = ["float32", "float64"]


def random_model(hparams: HParams, dtype: npt.DTypeLike = "float64", seed: int = 0) -> GPT2:
    """A model whose parameters are all random and large, so that each of them matters."""
    rng = np.random.default_rng(seed)

    def make(name: str, shape: tuple[int, ...]) -> Array:
        return rng.normal(name.endswith("/g"), 0.3, shape).astype(dtype)

    return GPT2(hparams, build(hparams, make), tokenizer=None, name="random")


def random_ids(hparams: HParams, n_batch: int, n_seq: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, hparams.n_vocab, (n_batch, n_seq))


def random_prompts(hparams: HParams, lengths: Sequence[int]) -> list[list[int]]:
    return [random_ids(hparams, 1, n, seed=i)[0].tolist() for i, n in enumerate(lengths)]


def greedy(logits: Array, ids: Sequence[int]) -> int:
    """For `Row`: chooses the likeliest token."""
    return int(logits.argmax())


def finish(rows: Sequence[Row], model: GPT2, slide: bool = False) -> list[list[int]]:
    """Lets the rows grow until all have ended, and returns their continuations."""
    for _ in generate_batch(rows, model.params, model.hparams.n_head, slide):
        pass
    return [row.ids for row in rows]


def hugging_face_config(hparams: HParams) -> Any:
    """The same shape as a `transformers.GPT2Config`."""
    return pytest.importorskip("transformers").GPT2Config(
        vocab_size=hparams.n_vocab,
        n_positions=hparams.n_ctx,
        n_embd=hparams.n_embd,
        n_head=hparams.n_head,
        n_layer=hparams.n_layer,
        bos_token_id=hparams.n_vocab - 1,
        eos_token_id=hparams.n_vocab - 1,
        attn_implementation="eager",
    )


def in_pytorch(model: GPT2) -> Any:
    """The same model as `transformers.GPT2LMHeadModel`, in the same precision."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # for models as small as these, more are slower
    config = hugging_face_config(model.hparams)
    dtype = getattr(torch, str(model.params.wte.dtype))
    peer = transformers.GPT2LMHeadModel(config).to(dtype).eval()
    state = {
        f"transformer.{hugging_face_name(name)}": torch.tensor(array) for name, array in named_arrays(model.params)
    }
    state["lm_head.weight"] = state["transformer.wte.weight"]
    peer.load_state_dict(state, strict=True)
    return peer


def on_device(model: GPT2) -> GPT2:
    """The model, moved to a stand-in for a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", device_array)
        moved = model.to("cupy")
    DeviceArray.crossed.clear()
    DeviceArray.called.clear()
    return moved


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """For each pass of a model, the number of texts and the number of tokens of each."""
    original, shapes = model.transformer, []

    def recorded(x: Array, *args: Any) -> Array:
        shapes.append(x.shape[:2])
        return original(x, *args)

    monkeypatch.setattr(model, "transformer", recorded)
    return shapes


@pytest.fixture(scope="session")
def tiny() -> GPT2:
    return numpy_gpt2.load("tiny")
