"""The medians of two runs side by side, such as those of two machines: `python -m benchmarks.beside FILE FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .__main__ import OURS, show
from .peers import INEXACT


def main(*files: Path) -> None:
    """Prints the tables of the JSON files that the benchmark has written, with a column for each program and file."""
    runs = [json.loads(Path(file).read_text("utf-8")) for file in files]
    processors = [run["machine"]["processor"] for run in runs]
    tables = [{title: rows for title, rows in run.items() if title not in ("machine", "rounds")} for run in runs]
    for title in dict.fromkeys(title for of_one in tables for title in of_one):
        print_beside(title, processors, [of_one.get(title, {}) for of_one in tables])


def print_beside(title: str, processors: list[str], tables: list[dict[str, Any]]) -> None:
    """Prints the tables of this title as one. Its first rows are the limits of the machines."""
    names = [*dict.fromkeys(name for rows in tables for name in rows)]
    columns = [*dict.fromkeys(column for rows in tables for row in rows.values() for column in row)]
    columns = [column for column in columns if column not in ("unit", "limit")]
    headings = [f"{column}{' (not exact)' * (column in INEXACT)}, {on}" for column in columns for on in processors]
    print(f"### {title}\n\n| | unit | {' | '.join(headings)} |\n|---|---|{'---:|' * len(headings)}")
    for name in names:
        unit = next(rows[name]["unit"] for rows in tables if name in rows)
        cells = [median(rows.get(name, {}), column) for column in columns for rows in tables]
        print(f"| {name} | {unit} | {' | '.join(cells)} |")
    print()


def median(row: dict[str, Any], column: str) -> str:
    """The figure of a program without its range; in the first column, that of the machine, where the row is a limit."""
    cell = row.get("limit" if column == OURS and "limit" in row else column)
    return show({**cell, "low": cell["median"], "high": cell["median"]} if isinstance(cell, dict) else cell)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
