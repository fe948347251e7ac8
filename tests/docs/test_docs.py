"""README and docs: links lead somewhere, code that is shown is the code, and tables that repeat the code agree with it.

Their examples are run by doctest, and their commands by `test_readme.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import numpy_gpt2
from numpy_gpt2 import generation, layers, sampling
from numpy_gpt2.cli.main import SUBCOMMANDS
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside.source import source

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
    for link in links:
        if "://" in link:
            assert re.match(r"https://[\w.-]+/", link)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def code_blocks(page: Path) -> list[str]:
    """The blocks of Python code that are not examples for doctest."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if ">>>" not in block]


def test_the_code_in_the_readme_is_that_of_the_model() -> None:
    attention, block, loop = code_blocks(README)
    assert attention == source(layers.attention) + "\n"
    assert block == source(layers.block) + "\n"
    assert loop in source(generation.generate) + "\n"
    assert len(loop.splitlines()) == 4


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    lines = page.read_text(encoding="utf-8").partition(f"{heading}\n")[2].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    last = next((i for i, line in enumerate(lines[lines.index(rows[0]) :]) if not line.startswith("|")), len(rows))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:last]]


def test_the_names_of_a_block_are_those_that_the_page_lists(tiny: GPT2) -> None:
    """With their shapes, which are given in letters. What a name means is a promise."""
    with numpy_gpt2.trace() as t:
        tiny.logits([[1, 2, 3], [4, 5, 6]])
    listed = table(ROOT / "docs" / "inside.md", "## The names")
    names = [name.strip("`") for name, _, _ in listed]
    assert names == [name for name in t if re.match(r"h0\b", name)]
    letters = {"n_batch": 2, "n_seq": 3, "n_key": 3, "n_embd": 256, "n_head": 4, "d_head": 64}
    for name, (_, _, shape) in zip(names, listed, strict=True):
        axes = re.findall(r"[^\[\],`;]+", shape.partition(";")[0])
        assert t[name].shape == tuple(eval(axis, {}, letters) for axis in axes), name
    others = [name for name in t if not re.match(r"h\d", name)]
    prose = (ROOT / "docs" / "inside.md").read_text(encoding="utf-8").partition("Before the first block")[2]
    assert re.findall(r"`([^`]+)`", prose.partition("Without a past")[0]) == others


def test_the_guide_lists_the_subcommands() -> None:
    assert [row[0].strip("`") for row in table(ROOT / "docs" / "guide.md", "## The command")] == [*SUBCOMMANDS]


def test_the_guide_lists_every_sampling_option() -> None:
    rows = {row[0].strip("`"): row for row in table(ROOT / "docs" / "guide.md", "### Options")}
    for option in sampling.OPTIONS:
        assert rows[option.name][1] == f"{option.default:g}"


def test_the_pages_name_every_room() -> None:
    from docs.plan import ORDER

    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert [room for room in ORDER if f"`{room}`" not in text and f"`{room}/`" not in text] == []
