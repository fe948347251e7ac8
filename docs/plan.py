"""The plan of the package, read from its imports: `python docs/plan.py` draws it as docs/plan.svg.

A room is a file or a folder at the top of the package. `ORDER` is the order in which rooms may import one another: each
only from rooms before it.
"""

from __future__ import annotations

import ast
import html
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "numpy_gpt2"
PICTURE = Path(__file__).parent / "plan.svg"

ORDER = (
    *(
        "interactive",
        "params",
        "machine",
        "cache",
        "layers",
        "model",
        "checks",
        "text",
        "tokenizer",
        "sampling",
        "decoding",
    ),
    *("generation", "weights", "hub", "evaluation", "gpt2", "inside", "training", "page", "cli"),
)
GPT2 = {
    "params",
    "cache",
    "layers",
    "model",
    "tokenizer",
    "sampling",
    "generation",
    "gpt2",
}  # what a reader reads first


def modules(package: Path = PACKAGE) -> list[Path]:
    """The source files of a package."""
    return sorted(package.rglob("*.py"))


def room_of(file: Path, package: Path = PACKAGE) -> str:
    """The room that a source file belongs to."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported_modules(file: Path, package: Path = PACKAGE) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, with dots: `machine.files`.

    What is imported from a folder may be a module or a name in its `__init__.py`; both are listed as modules.
    """
    parts = file.relative_to(package).parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
            base = [part for part in base if part]
            found |= {".".join(base)} if node.module and not is_folder(base, package) else set()
            found |= {".".join([*base, alias.name]) for alias in node.names if is_folder(base, package)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.name:
            found.add((node.module or "").partition(".")[2] or node.names[0].name)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == package.name]
            found |= {name.partition(".")[2] or "__init__" for name in names}
    return found


def is_folder(parts: list[str], package: Path) -> bool:
    """Whether these parts of a module's name are a folder of the package."""
    return package.joinpath(*parts).is_dir()


def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """Which room imports from which other, as pairs of names."""
    pairs = {
        (room_of(file, package), module.split(".")[0])
        for file in modules(package)
        for module in imported_modules(file, package)
    }
    return {(room, other) for room, other in pairs if room != other and other in ORDER}


def direct(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that are left when those are dropped that a longer way implies (the transitive reduction)."""
    reached: dict[str, set[str]] = {}
    for room in ORDER:
        targets = {other for start, other in pairs if start == room}
        reached[room] = targets.union(*(reached[other] for other in targets))
    return {
        (room, other)
        for room, other in pairs
        if room in ORDER and not any((room, between) in pairs and other in reached[between] for between in ORDER)
    }


def gloss(room: str) -> list[str]:
    """What a room is for, in two lines at most: the first sentence of its docstring, or what follows a colon in it."""
    file = PACKAGE / f"{room}.py"
    source = (file if file.exists() else PACKAGE / room / "__init__.py").read_text(encoding="utf-8")
    sentence = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].partition(". ")[0].rstrip(".")
    return textwrap.wrap(
        sentence.partition(": ")[2] or sentence, 38, max_lines=2, placeholder=" ...", break_on_hyphens=False
    )


def levels(pairs: set[tuple[str, str]]) -> dict[str, int]:
    """How many arrows the longest way from each room down to `params` has."""
    level: dict[str, int] = {}
    for room in ORDER:
        level[room] = 1 + max((level[other] for start, other in pairs if start == room), default=-1)
    return level


WIDTH, HEIGHT, GAP = 240, 62, 40  # of a box, and between rows


def draw() -> str:
    """The picture, as SVG: an arrow goes from each room down to those that it imports from."""
    pairs = direct(arrows())
    level = levels(pairs)
    n_rows = 1 + max(level.values())
    rows = [[room for room in ORDER if level[room] == n] for n in range(n_rows)]
    width = max(map(len, rows)) * (WIDTH + 24) + 24
    centre = {
        room: (width * (i + 0.5) / len(row), GAP / 2 + (n_rows - 1 - n) * (HEIGHT + GAP) + HEIGHT / 2)
        for n, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    height = n_rows * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M0,0 L8,4 L0,8 z" fill="#555555"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for room, other in sorted(pairs):
        (x1, y1), (x2, y2) = centre[room], centre[other]
        ends = f'x1="{x1:.0f}" y1="{y1 + HEIGHT / 2:.0f}" x2="{x2:.0f}" y2="{y2 - HEIGHT / 2:.0f}"'
        parts.append(f'<line {ends} stroke="#555555" marker-end="url(#head)"/>')
    for room, (x, y) in centre.items():
        fill = "#fbe3b8" if room in GPT2 else "#cfe3f2"
        box = f'x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6"'
        name = f"{room}.py" if (PACKAGE / f"{room}.py").exists() else f"{room}/"
        parts += [
            f'<rect {box} fill="{fill}" stroke="#888888"/>',
            f'<text x="{x:.0f}" y="{y - 10:.0f}" text-anchor="middle" font-size="15" font-weight="bold">{name}</text>',
        ]
        for i, line in enumerate(gloss(room)):
            text = html.escape(line, quote=False)
            parts.append(
                f'<text x="{x:.0f}" y="{y + 7 + 14 * i:.0f}" text-anchor="middle" font-size="11">{text}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
