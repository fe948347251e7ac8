"""GPT-2, the released model, in plain NumPy.

>>> import numpy_gpt2
>>> model = numpy_gpt2.load("tiny")
>>> model.generate("Once upon a time", max_new_tokens=8, temperature=0)
' there was a man who had a son'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generation import Generation
    from .gpt2 import GPT2, init, load, save
    from .model import Past
    from .params import HParams
    from .recorder import Trace, trace
    from .tokenizer import Tokenizer

__version__ = "0.1.0"
__all__ = [
    "GPT2",
    "Generation",
    "HParams",
    "Past",
    "Tokenizer",
    "Trace",
    "__version__",
    "init",
    "load",
    "save",
    "trace",
]

# Imported on first use, so that `python -m numpy_gpt2.MODULE` finds no module imported already.
_HOME = {
    "GPT2": "gpt2",
    "init": "gpt2",
    "load": "gpt2",
    "save": "gpt2",
    "Generation": "generation",
    "Past": "model",
    "HParams": "params",
    "Tokenizer": "tokenizer",
    "Trace": "recorder",
    "trace": "recorder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
