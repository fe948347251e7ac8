"""What the tests of downloads share: small models that a server offers under the names of released ones."""

from __future__ import annotations

import json
import random
from pathlib import Path

from server import Store

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.files import GPT2_VOCABULARY, HUB_FILES, OPENAI_DATA, OPENAI_INDEX, TABLE_MAGIC
from numpy_gpt2.params import HParams, count_params, named_arrays
from numpy_gpt2.tokenizer import Tokenizer
from numpy_gpt2.weights.config import write_configs
from numpy_gpt2.weights.folder import hugging_face_name
from numpy_gpt2.weights.safetensors import write_file

# GPT-2's vocabulary, and everything else as small as possible.
HPARAMS = HParams(n_vocab=50257, n_ctx=8, n_embd=4, n_head=2, n_layer=2)


OPENAI_NAMES = ("124M", "355M", "774M", "1558M")
HUB_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")
REPOSITORIES = (
    "openai-community/gpt2",
    *(f"openai-community/{name}" for name in HUB_NAMES[1:4]),
    "distilbert/distilgpt2",
)


def hub_files(model: GPT2, folder: Path) -> dict[str, bytes]:
    """The files of a model of the shape HPARAMS on the hub; the folder is for them, and empty."""
    arrays = {hugging_face_name(name): array for name, array in named_arrays(model.params)}
    shapes = {name: array.shape for name, array in arrays.items()}
    write_file(folder / "model.safetensors", shapes, "float32", arrays.__getitem__, {})
    write_configs(folder, HPARAMS, Tokenizer.gpt2(), "float32")
    return {name: (folder / name).read_bytes() for name in HUB_FILES}


def openai_files() -> dict[str, bytes]:
    """A model of OpenAI's with a checkpoint that only has the right size."""
    return {
        "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
        "hparams.json": json.dumps(HPARAMS._asdict()).encode(),
        OPENAI_DATA: random.Random(0).randbytes(4 * count_params(HPARAMS)),
        OPENAI_INDEX: random.Random(1).randbytes(1000) + TABLE_MAGIC,
        **{name: (GPT2_VOCABULARY / name).read_bytes() for name in ("encoder.json", "vocab.bpe")},
    }


def served_files(model: GPT2, folder: Path) -> dict[str, bytes]:
    """Files for a server, by path, as a mirror has them: all released models, as `hub_files` and `openai_files`.

    Args:
        model: a model of the shape HPARAMS.
        folder: an empty folder for temporary files.
    """
    contents = {
        **dict.fromkeys(OPENAI_NAMES, openai_files()),
        **dict.fromkeys(HUB_NAMES, hub_files(model, folder)),
    }
    return {f"/{name}/{file}": content for name, files in contents.items() for file, content in files.items()}


def assert_arrived(store: Store, name: str, folder: Path) -> None:
    """The folder holds exactly the files that the server has for this model."""
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"} == {
        path.rpartition("/")[2]: content for path, content in store.files.items() if path.startswith(f"/{name}/")
    }


def size_of(store: Store, name: str) -> int:
    """The size of all files of a model together."""
    return sum(len(content) for path, content in store.files.items() if path.startswith(f"/{name}/"))
