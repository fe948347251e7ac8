"""The medians of two runs side by side, such as those of two machines: `python -m benchmarks.beside FILE FILE`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .__main__ import OURS, show
from .peers import INEXACT


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables of the JSON files that the benchmark has written, with a column for each program and file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description="Print several runs side by side.")
    parser.add_argument("runs", metavar="FILE", nargs="+", type=figures, help="what a benchmark has written")
    runs = parser.parse_args(arguments).runs
    processors = [run["machine"]["processor"] for run in runs]
    tables = [{title: rows for title, rows in run.items() if title not in ("machine", "rounds")} for run in runs]
    for title in dict.fromkeys(title for of_one in tables for title in of_one):
        print_beside(title, processors, [of_one.get(title, {}) for of_one in tables])


def figures(file: str) -> dict[str, Any]:
    """The figures in a file.

    Raises:
        argparse.ArgumentTypeError: it cannot be read, or holds something else.
    """
    try:
        found: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
        found["machine"]["processor"]
    except (OSError, ValueError, TypeError, KeyError):
        raise argparse.ArgumentTypeError(f"{file} is not a file that the benchmark has written") from None
    return found


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
    main()
