"""Packs a trained model into the files that come with the package.

    python docs/tiny/pack.py model vocabulary numpy_gpt2/data/tiny

The arguments are the folder of the run, the vocabulary that the run began with, and the folder for the files: the
parameters in half precision, and the vocabulary and the hyperparameters in OpenAI's layout.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy_gpt2


def main(model: str, vocabulary: str, output: str) -> None:
    """Writes the files; any other files in the output folder stay as they are."""
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    loaded = numpy_gpt2.load(model)
    with tempfile.TemporaryDirectory() as folder:
        numpy_gpt2.save(loaded, folder, dtype="float16")
        for name in ("config.json", "model.safetensors"):
            shutil.copy(Path(folder) / name, target)
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(Path(vocabulary) / name, target)
    (target / "hparams.json").write_text(json.dumps(loaded.hparams._asdict()) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
