"""GPT-2, the released model, in plain NumPy.

>>> import numpy_gpt2
>>> model = numpy_gpt2.load("tiny")
>>> model.generate("Once upon a time", max_new_tokens=8, temperature=0)
' there was a man who had a son'
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# The stub beside this file lists what the package exports, for type checkers and for the lines below. A name is
# imported when it is first used: a command can then prepare for Ctrl-C before NumPy is imported.
_MODULES = {
    name: module
    for module, name in re.findall(r"from (\S+) import (\w+)", Path(__file__).with_suffix(".pyi").read_text())
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
