"""The page without a server: answers in the browser itself, where Pyodide runs this package.

`static/worker.js` calls this. Text goes in and out, since plain data of Python and of JavaScript are not the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from ..gpt2 import GPT2, load
from ..hub.names import EMBEDDED, model_folder
from ..params import build, named_arrays
from .answers import Answers
from .fields import read_json

log = logging.getLogger(__name__)


class ExportedAnswers(Answers):
    """Answers with what was exported, and nothing else may be chosen.

    Args:
        name: the model to begin with: `tiny`, or one whose files are where `prepare` says.
        models_dir: as for `prepare`.

    Raises:
        OSError, ValueError: as for `gpt2.load`.
    """

    def __init__(self, name: str, models_dir: str) -> None:
        self._exported = [*dict.fromkeys([EMBEDDED, name])]

        def loads(name: str) -> GPT2:
            return column_major(load(name, models_dir))

        super().__init__(loads(name), models_dir, loads)

    def _names(self) -> list[str]:
        """The names of the models that were exported."""
        return self._exported


def column_major(model: GPT2) -> GPT2:
    """The same model, with the columns of each linear map whole in memory.

    NumPy in Pyodide multiplies without BLAS, one row by one column after another. In the usual order, a column is
    spread over the whole matrix, and a product takes four times as long.
    """
    arrays = dict(named_arrays(model.params))
    order = np.asfortranarray
    params = build(model.hparams, lambda name, _: order(arrays[name]) if name.endswith("/w") else arrays[name])
    return GPT2(model.hparams, params, model.tokenizer, model.name, model.multiple_choice_head, model.special_ids)


def prepare(name: str, models_dir: str) -> str:
    """Makes the folder for the files of an exported model, and returns its path.

    Args:
        name: the name, as `export.exported_name` gives it.
        models_dir: the folder of all models, which a name such as `./my-model` is relative to.

    Raises:
        OSError: the folder cannot be made.
    """
    Path(models_dir).mkdir(exist_ok=True)
    os.chdir(models_dir)
    folder = model_folder(name, models_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder.resolve())


def lines(answers: Answers, request: str) -> Generator[str, None, None]:
    """The lines of the answer to a request, in JSON. An error that nobody has foreseen becomes a sentence.

    Args:
        answers: what answers.
        request: the request, in JSON.
    """
    try:
        with closing(answers.answer(read_json(request.encode()))) as each:  # type: ignore[type-var]
            for line in each:
                yield json.dumps(line, allow_nan=False)
    except ValueError as error:
        yield json.dumps({"error": str(error)})
    except Exception as error:
        log.error("an answer failed: %s: %s", type(error).__name__, error)
        yield json.dumps({"error": "something went wrong that should not: the browser's console says what"})
