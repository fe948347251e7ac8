"""Writes heads.json: what a model wrote, and what its heads did, at several moments of its training.

    python docs/tiny/record.py vocabulary model-at-200 model-at-400 model > docs/tiny/heads.json

The arguments are the vocabulary that the run began with, then copies of the folder of the run, from the earliest to the
latest. The first entry of each list is of the model before the first step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy_gpt2
from numpy_gpt2 import GPT2, Tokenizer
from numpy_gpt2.inside import tables
from numpy_gpt2.inside.experiments import head_scores
from numpy_gpt2.params import Array, init_params

TEXT = (
    "Once upon a time there lived a king and a queen who had three daughters. The youngest was so beautiful that the "
    "sun himself wondered whenever he saw her."
)
SHOWN = 16  # how many tokens a picture of attention weights shows


def last_step(folder: str) -> int:
    """The last step in the log of a folder."""
    return int(json.loads((Path(folder) / "training.jsonl").read_text().splitlines()[-1])["step"])


def rounded(array: Array) -> Any:
    """The numbers of an array in lists, with three decimals."""
    return array.astype(float).round(3).tolist()


def main(vocabulary: str, *folders: str) -> None:
    """Prints the JSON."""
    models = [numpy_gpt2.load(folder) for folder in folders]
    hparams = models[0].hparams
    models.insert(0, GPT2(hparams, init_params(hparams, seed=0), Tokenizer.load(vocabulary), name="before"))
    scores = [head_scores(model, TEXT) for model in models]
    weights = [tables.attention_weights(model, TEXT)[:, :, :SHOWN, :SHOWN] for model in models]
    about = {
        "text": TEXT,
        "steps": [0, *map(last_step, folders)],
        "tales": [model.generate("Once upon a time", max_new_tokens=24, seed=0) for model in models],
        "previous": [rounded(score.previous) for score in scores],
        "induction": [rounded(score.induction) for score in scores],
        "weights": [rounded(each) for each in weights],
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
