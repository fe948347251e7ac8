"""What the tests of model files share: models in OpenAI's layout, written by TensorFlow's own Saver."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.params import Array, HParams, named_arrays

# OpenAI's layout needs a vocabulary. This is the shape of a model with that of tiny, which has 4096 tokens.
HPARAMS = HParams(n_vocab=4096, n_ctx=7, n_embd=12, n_head=3, n_layer=2)
INDEX_FILE = "model.ckpt.index"
DATA_FILE = "model.ckpt.data-00000-of-00001"


def write_tensorflow_checkpoint(folder: Path, variables: dict[str, Array], name: str = "model.ckpt") -> None:
    """Saves variables as OpenAI did, with TensorFlow 1's Saver."""
    tf = pytest.importorskip("tensorflow")
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for variable, array in variables.items():
            v1.get_variable(variable, initializer=tf.constant(array), use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / name))


def openai_variables(model: GPT2) -> dict[str, Array]:
    """The arrays of a model, with the names and shapes that they have in OpenAI's checkpoints."""
    return {
        f"model/{name}": array[None] if name.endswith("/w") else array for name, array in named_arrays(model.params)
    }


def write_openai_folder(folder: Path, model: GPT2) -> None:
    """Writes a model of the shape HPARAMS in OpenAI's layout, with the vocabulary of tiny."""
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(model_folder("tiny") / name, folder / name)
    (folder / "hparams.json").write_text(json.dumps(model.hparams._asdict()))
    write_tensorflow_checkpoint(folder, openai_variables(model))


def assert_same_parameters(ours: GPT2, theirs: GPT2) -> None:
    ours_named, theirs_named = dict(named_arrays(ours.params)), dict(named_arrays(theirs.params))
    assert ours_named.keys() == theirs_named.keys()
    for name, array in ours_named.items():
        np.testing.assert_array_equal(array, theirs_named[name], err_msg=name)
