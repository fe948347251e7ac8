"""What a notebook shows of an object."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class Cells(HTMLParser):
    """The text of each cell, by row, and the caption."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption, self._open = "", ""
        self.feed(table)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("td", "th"):
            self.rows[-1].append(data)
        else:
            self.caption += data


def cells(value: Any) -> list[list[str]]:
    """The cells of the table that a notebook shows of a value, by row."""
    return Cells(value._repr_html_()).rows
