"""The package as it is installed: the wheel has every module and file, and exports what it promises."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numpy_gpt2

ROOT = Path(__file__).parent.parent


def test_a_wheel_installed_elsewhere_has_everything(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel needs it")
    pytest.importorskip("matplotlib", reason="the pictures need it")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "numpy_gpt2", source / "numpy_gpt2", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path / "wheels", source],
        check=True,
    )
    (wheel,) = (tmp_path / "wheels").glob("numpy_gpt2-*.whl")
    elsewhere = tmp_path / "elsewhere"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", elsewhere, wheel], check=True)

    files = {file.relative_to(ROOT / "numpy_gpt2") for file in (ROOT / "numpy_gpt2").rglob("*") if file.is_file()}
    files = {file for file in files if "__pycache__" not in file.parts}
    installed = {file.relative_to(elsewhere / "numpy_gpt2") for file in (elsewhere / "numpy_gpt2").rglob("*")}
    assert files <= installed
    modules = [
        ".".join(("numpy_gpt2", *file.with_suffix("").parts)).removesuffix(".__init__")
        for file in files
        if file.suffix == ".py"
    ]
    assert len(modules) > 40
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(elsewhere)!r})\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "import numpy_gpt2; print(numpy_gpt2.__file__)\n"
        "print(numpy_gpt2.load('tiny').generate('The king', 4, temperature=0))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    text = numpy_gpt2.load("tiny").generate("The king", 4, temperature=0)
    assert result.stdout == f"{elsewhere}/numpy_gpt2/__init__.py\n{text}\n"


def test_each_exported_name_is_there_and_no_other() -> None:
    assert {name: getattr(numpy_gpt2, name).__module__ for name in numpy_gpt2.__all__ if name != "__version__"} == {
        "GPT2": "numpy_gpt2.gpt2",
        "Generation": "numpy_gpt2.decoding.row",
        "HParams": "numpy_gpt2.params",
        "Past": "numpy_gpt2.cache",
        "Tokenizer": "numpy_gpt2.tokenizer",
        "Trace": "numpy_gpt2.inside.recorder",
        "patch": "numpy_gpt2.inside.patches",
        "init": "numpy_gpt2.gpt2",
        "load": "numpy_gpt2.gpt2",
        "save": "numpy_gpt2.gpt2",
        "set_threads": "numpy_gpt2.machine.threads",
        "trace": "numpy_gpt2.inside.recorder",
    }
    assert {*numpy_gpt2.__all__} <= {*dir(numpy_gpt2)}
    with pytest.raises(AttributeError, match="module 'numpy_gpt2' has no attribute 'lod'"):
        numpy_gpt2.lod  # type: ignore[attr-defined]  # noqa: B018


def test_each_room_is_there_without_an_import_of_its_own() -> None:
    """In a process that has imported nothing else; with tab completion, but not in `from numpy_gpt2 import *`."""
    modules = {file.stem for file in (ROOT / "numpy_gpt2").glob("*.py")} - {"__init__", "__main__"}
    rooms = sorted(modules | {file.parent.name for file in (ROOT / "numpy_gpt2").glob("*/__init__.py")})
    assert {"inside", "layers", "sampling", "cli"} <= {*rooms}
    for room in rooms:
        code = f"import numpy_gpt2; print(numpy_gpt2.{room}.__name__, {room!r} in dir(numpy_gpt2))"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout == f"numpy_gpt2.{room} True\n"
    assert not {*rooms} & {*numpy_gpt2.__all__}
    assert numpy_gpt2.params.HParams is numpy_gpt2.HParams  # type checkers know the rooms as well


def test_importing_the_package_imports_nothing_slow() -> None:
    """NumPy comes with the first name that is used, so a command can prepare for Ctrl-C before."""
    code = "import sys, numpy_gpt2; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "regex", "requests", "argparse"} & {*result.stdout.split()}
