"""GPT-2, the released model, in plain NumPy.

>>> import numpy_gpt2
>>> model = numpy_gpt2.load("tiny")
>>> model.generate("Once upon a time", max_new_tokens=8, temperature=0)
' there was a great many people in the'
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports a name when it is first used, so that a command can prepare for Ctrl-C before NumPy is imported."""
    exported = _exported()
    if name == "__all__":
        return ["__version__", *(name for name, module in exported.items() if module != ".")]
    if name not in exported:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if exported[name] == ".":
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(exported[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), "__all__", *_exported()})


def _exported() -> dict[str, str]:
    """The module of each exported name, and "." for a module. The stub next to this file lists them."""
    import re
    from pathlib import Path

    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {name: module for module, name in re.findall(r"from (\S+) import (\w+)", stub)}
