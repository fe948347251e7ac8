"""The plan of the package: its rooms, the order in which they import one another, and what they may not know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs import plan


def test_the_rooms_are_those_of_the_plan() -> None:
    files = {file.stem for file in plan.PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    folders = {file.parent.name for file in plan.PACKAGE.glob("*/__init__.py")}
    assert files | folders == {*plan.ORDER}
    assert {*plan.GPT2} <= files
    assert files - {*plan.GPT2} == {"checks", "interactive"}


def test_each_room_imports_only_from_rooms_before_it() -> None:
    place = {room: i for i, room in enumerate(plan.ORDER)}
    imports = {(room, other) for room, other in plan.arrows() if room != "__main__"}
    assert len(imports) > 40
    assert [f"{room} imports {other}" for room, other in sorted(imports) if place[other] >= place[room]] == []


def test_imports_are_found(tmp_path: Path) -> None:
    """Of every kind: of a module, of a name in it, of a folder, inside a function, and absolute."""
    package = tmp_path / "numpy_gpt2"
    (package / "machine").mkdir(parents=True)
    for name in ("params.py", "machine/files.py", "machine/__init__.py"):
        (package / name).touch()
    (package / "cli").mkdir()
    (package / "cli" / "main.py").write_text(
        "import numpy_gpt2\n"
        "import numpy_gpt2.params\n"
        "from numpy_gpt2.cache import Past\n"
        "from .. import checks, __version__\n"
        "from ..machine.files import locked\n"
        "from ..hub import names\n"
        "from . import process\n"
        "def run():\n"
        "    from ..inside.recorder import trace\n"
    )
    (package / "hub").mkdir()
    assert plan.imported_modules(package / "cli" / "main.py", package) == {
        *("__init__", "params", "cache", "checks", "__version__", "machine.files", "hub.names", "cli.process"),
        "inside.recorder",
    }
    assert plan.arrows(package) == {("cli", room) for room in ("params", "cache", "checks", "machine", "hub", "inside")}


@pytest.mark.parametrize("room", ["layers", "model", "sampling"])
def test_functions_are_called_through_their_module(room: str) -> None:
    """So a function that is replaced from outside is replaced everywhere."""
    for file in plan.modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "") in (room, f"numpy_gpt2.{room}"):
                names = {alias.name for alias in node.names}
                assert all(name.isupper() for name in names), f"{file.name} imports {names} from {room}"


def test_the_files_of_gpt2_are_free_of_what_a_reader_does_not_need() -> None:
    for room in plan.GPT2:
        source = (plan.PACKAGE / f"{room}.py").read_text(encoding="utf-8")
        assert "noqa" not in source
        assert "Protocol" not in source
        assert "TYPE_CHECKING" not in source
    for room in ("layers", "model"):
        source = (plan.PACKAGE / f"{room}.py").read_text(encoding="utf-8")
        assert not re.search(r"^[A-Z][A-Z_]+ *=|token_type|backend|to_host|trace|record", source, re.MULTILINE)


def test_only_the_command_line_knows_argparse() -> None:
    for file in plan.modules():
        imports = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        assert "argparse" not in names or plan.room_of(file) == "cli", file


def test_every_folder_says_what_it_is_for() -> None:
    """In a docstring of a paragraph or two. Nothing else is in its `__init__.py`, but for the names of `inside`."""
    for file in plan.PACKAGE.glob("*/__init__.py"):
        docstring, *others = ast.parse(file.read_text(encoding="utf-8")).body
        assert not others or file.parent.name == "inside"
        assert isinstance(docstring, ast.Expr)
        assert len(ast.unparse(docstring)) > 80


def test_the_picture_of_the_plan_is_that_of_the_imports() -> None:
    """`python docs/plan.py` draws it again."""
    assert plan.PICTURE.read_text(encoding="utf-8") == plan.draw()


def test_arrows_that_a_longer_way_implies_are_left_out() -> None:
    pairs = {("machine", "params"), ("cache", "params"), ("layers", "params"), ("layers", "cache")}
    assert plan.direct(pairs) == pairs - {("layers", "params")}
