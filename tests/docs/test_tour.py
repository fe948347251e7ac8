"""The tours, `docs/tour.ipynb` and `docs/training.ipynb`: they run, and their outputs are those stored in them.

If a change of the model changes them on purpose, `jupyter execute --inplace docs/tour.ipynb` stores them anew.
"""

from __future__ import annotations

import base64
import copy
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
imread = pytest.importorskip("matplotlib.image").imread

DOCS = Path(__file__).parent.parent.parent / "docs"
TOURS = ("tour", "training")
N_PICTURES = {"tour": 15, "training": 7}
SHOWN = {
    "tour": (
        "merge embed softmax attention multi_head_attention linear split_heads merge_heads causal_mask layer_norm mlp "
        "gelu block scale_by_temperature keep_top_k keep_top_p adjust generate append"
    ),
    "training": (
        "cross_entropy cross_entropy_backward linear_backward layer_norm_backward block_backward gelu_backward step "
        "clip_by_global_norm learning_rate learn_plain"
    ),
}
DEFINED = {
    "tour": "show continue_with_past",
    "training": "show loss_of loss_with stream_gradients new_blocks sample",
}


@pytest.fixture(scope="module", params=TOURS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def written(name: str) -> Any:
    return nbformat.read(DOCS / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(written: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    notebook = copy.deepcopy(written)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    folder = tmp_path_factory.mktemp("tour")
    shutil.copy(DOCS / "tales.txt", folder)
    shutil.copytree(DOCS / "tiny", folder / "tiny")
    settings = {"timeout": 600, "coalesce_streams": True}  # a busy machine prints the text of a cell in several parts
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **settings).execute()
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


def said(notebook: Any) -> str:
    """All that a notebook prints."""
    return "".join(text for cell in notebook.cells if cell.cell_type == "code" for text in texts(cell))


def code(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def shown(notebook: Any) -> list[str]:
    """The functions whose source a notebook shows."""
    return re.findall(r"^show\((?:\w+\.)*(\w+)\)$", code(notebook), re.MULTILINE)


def test_the_stored_outputs_are_up_to_date(name: str, written: Any, executed: Any) -> None:
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
    assert n_pictures == N_PICTURES[name]


def test_everything_that_they_compare_is_equal(name: str, executed: Any) -> None:
    claims = re.findall(r"^.*: +(True|False)$", said(executed), re.MULTILINE)
    assert claims == ["True"] * {"tour": 10, "training": 17}[name]


def test_every_section_is_complete(name: str, written: Any) -> None:
    """Each has a formula, and an exercise with its answer."""
    prose = "\n".join(cell.source for cell in written.cells if cell.cell_type == "markdown")
    sections = re.split(r"^## (?=\d)", prose, flags=re.MULTILINE)[1:]
    assert [section.split(".")[0] for section in sections] == [
        str(i) for i in range(1, 1 + {"tour": 11, "training": 7}[name])
    ]
    for section in sections:
        assert "$$" in section
        assert "**Exercise.**" in section
        assert "<details><summary>Answer</summary>" in section


def test_the_code_is_shown_from_its_source(name: str, written: Any) -> None:
    """No code is copied."""
    assert shown(written) == SHOWN[name].split()
    assert {*re.findall(r"^def (\w+)", code(written), re.MULTILINE)} == {*DEFINED[name].split()}


@pytest.mark.parametrize("name", ["tour"], indirect=True, scope="module")
def test_the_first_tour_says_what_the_model_does(written: Any) -> None:
    assert "rows that changed: [14] of 15" in said(written)
    assert "the head that matters most is head 1 of block h3" in said(written)
    assert "most like an induction head: head 3 of block h3" in said(written)


@pytest.mark.parametrize("name", ["tour"], indirect=True, scope="module")
def test_another_model_is_one_name_away(written: Any) -> None:
    assert len(re.findall("tiny", code(written))) == 1
    assert 'NAME = "tiny"\n' in code(written)
