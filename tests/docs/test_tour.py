"""The tour, `docs/tour.ipynb`: it runs, and its outputs are those that are stored in it.

If a change of the model changes them on purpose, `jupyter execute --inplace docs/tour.ipynb` stores them anew.
"""

from __future__ import annotations

import base64
import copy
import io
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
imread = pytest.importorskip("matplotlib.image").imread

TOUR = Path(__file__).parent.parent.parent / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def written() -> Any:
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture(scope="module")
def executed(written: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    notebook = copy.deepcopy(written)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    folder = str(tmp_path_factory.mktemp("tour"))
    settings = {"timeout": 600, "coalesce_streams": True}  # a busy machine prints the text of a cell in several parts
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}, **settings).execute()
    return notebook


def texts(cell: Any) -> list[str]:
    """What a cell prints or displays as text."""
    return [
        output.text if output.output_type == "stream" else output.data.get("text/markdown", "")
        for output in cell.outputs
    ]


def pictures(cell: Any) -> list[Any]:
    return [
        imread(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def test_the_stored_outputs_are_up_to_date(written: Any, executed: Any) -> None:
    n_pictures = 0
    for then, now in zip(written.cells, executed.cells, strict=True):
        if then.cell_type != "code":
            continue
        assert [output.output_type for output in now.outputs] == [output.output_type for output in then.outputs]
        for before, after in zip(texts(then), texts(now), strict=True):
            assert re.sub(r"\d", "0", after) == re.sub(r"\d", "0", before)
            assert numbers(after) == pytest.approx(numbers(before), abs=2e-3)
        for before, after in zip(pictures(then), pictures(now), strict=True):
            assert after.shape == pytest.approx(before.shape, rel=0.05)
            assert after.std() == pytest.approx(before.std(), rel=0.1)
            n_pictures += 1
    assert n_pictures == 15


def test_everything_that_it_compares_is_equal(executed: Any) -> None:
    said = "".join(text for cell in executed.cells if cell.cell_type == "code" for text in texts(cell))
    claims = re.findall(r"^.*: +(True|False)$", said, re.MULTILINE)
    assert claims == ["True"] * 10
    assert "rows that changed: [18] of 19" in said
    assert "the head that matters most is head 2 of block h4" in said
    assert "most like an induction head: head 1 of block h5" in said


def test_the_code_of_the_model_is_shown_from_its_source_and_every_section_is_complete(written: Any) -> None:
    """No code is copied. Each section has a formula, and an exercise with its answer."""
    code = "\n".join(cell.source for cell in written.cells if cell.cell_type == "code")
    shown = re.findall(r"^show\((?:\w+\.)*(\w+)\)$", code, re.MULTILINE)
    assert shown == [
        *["merge", "embed", "softmax", "attention", "multi_head_attention", "linear", "split_heads", "merge_heads"],
        *["causal_mask", "layer_norm", "mlp", "gelu", "block"],
        *["scale_by_temperature", "keep_top_k", "keep_top_p", "adjust", "generate", "append"],
    ]
    assert {"show", "continue_with_past"} == {*re.findall(r"^def (\w+)", code, re.MULTILINE)}
    prose = "\n".join(cell.source for cell in written.cells if cell.cell_type == "markdown")
    sections = re.split(r"^## (?=\d)", prose, flags=re.MULTILINE)[1:]
    assert [section.split(".")[0] for section in sections] == [str(i) for i in range(1, 12)]
    for section in sections:
        assert "$$" in section
        assert "**Exercise.**" in section
        assert "<details><summary>Answer</summary>" in section


def test_another_model_is_one_name_away(written: Any) -> None:
    code = "\n".join(cell.source for cell in written.cells if cell.cell_type == "code")
    assert len(re.findall("tiny", code)) == 1
    assert 'NAME = "tiny"\n' in code
