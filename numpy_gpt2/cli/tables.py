"""What the views of `numpy-gpt2 explore` print: tables, or JSON objects."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gpt2 import GPT2
from ..inside.tables import token_labels
from .process import given_text, is_terminal, show_object

SENTENCE = "The king gave his daughter to the poor miller's son, and they lived happily together."


def text_of(args: argparse.Namespace) -> str:
    """The text to look at. At a terminal, the default sentence is used."""
    return SENTENCE if args.text is None and is_terminal(sys.stdin) else given_text(args.text, exact=True)


def show_table(
    args: argparse.Namespace,
    columns: dict[str, str],
    rows: Iterable[Sequence[Any]],
    title: str = "",
    total: str = "",
    common: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Prints a table or, with `--json`, an object for each row.

    Args:
        args: the options.
        columns: the heads, each with the format of the numbers below it; "<" aligns the column to the left.
        rows: the cells. A text or a list is printed as it is, a tuple element by element.
        title, total: lines above and below the table.
        common: what holds for all rows; with `--json`, a part of each object, otherwise a line above the title.
    """
    if args.json:
        names = [head.replace(" ", "_") for head in columns]
        for row in rows:
            show_object({**dict(zip(names, row, strict=True)), **common})
        return
    lines = [
        [*columns],
        *([cell(value, form) for value, form in zip(row, columns.values(), strict=True)] for row in rows),
    ]
    if common:
        print("  ".join(f"{name.replace('_', ' ')}: {cell(value, '.4f')}" for name, value in common.items()))
    if title:
        print(title)
    print_aligned(lines, [form.startswith("<") for form in columns.values()])
    if total:
        print(f"\n{total}")


def token_texts(args: argparse.Namespace, model: GPT2, ids: npt.ArrayLike) -> list[str]:
    """A text for each token of a row: with visible white space or, with `--json`, as it is."""
    if not args.json or model.tokenizer is None:
        return token_labels(model.tokenizer, ids)
    return [model.tokenizer.decode([id]) for id in np.ravel(ids).tolist()]


def cell(value: Any, form: str) -> str:
    """A value as it is printed."""
    if isinstance(value, tuple):
        return " ".join(cell(each, form) for each in value)
    if value is None or isinstance(value, (str, list)):
        return "" if value is None else str(value)
    text = format(value, form)
    return text.removeprefix("-") if not text.strip("-0.") else text  # not -0.000


def print_aligned(lines: list[list[str]], left: Sequence[bool]) -> None:
    """Prints columns of equal width, each aligned to the left or to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [c.ljust(n) if to_left else c.rjust(n) for c, n, to_left in zip(line, widths, left, strict=True)]
        print("  ".join(cells).rstrip())
