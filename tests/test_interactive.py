"""What people bring along: tables in a notebook, and names of transformers, which are answered with the name here."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from typing import Any

import pytest
from conftest import SHAPES, random_model
from notebook import Cells, cells

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.interactive import LENS_HINTS, MODEL_HINTS, TOKENIZER_HINTS, html_table
from numpy_gpt2.tokenizer import Tokenizer


def test_what_a_table_holds_is_text() -> None:
    table = html_table("<i>", [("<b>&amp;", 5), ("'\"", None)], head=("a<", "b"))
    assert "<i>" not in table
    assert "<b>" not in table
    assert Cells(table).rows == [["a<", "b"], ["<b>&amp;", "5"], ["'\"", "None"]]
    assert Cells(table).caption == "<i>"


def test_a_model_shows_its_shape(tiny: GPT2) -> None:
    shown = dict(cells(tiny))
    assert (shown["parameters"], shown["n_vocab"], shown["n_layer"]) == ("4,273,664", "4096", "4")
    named = GPT2(tiny.hparams, tiny.params, None, "<script>")
    assert "<script>" not in named._repr_html_()


OBJECTS = {"model": (GPT2, MODEL_HINTS | LENS_HINTS), "tokenizer": (Tokenizer, TOKENIZER_HINTS)}
HINTS = [(kind, name, hint) for kind, (_, hints) in OBJECTS.items() for name, hint in hints.items()]


@pytest.fixture(scope="module")
def theirs(tiny: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same objects in transformers."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    numpy_gpt2.save(tiny, folder)
    model, tokenizer = transformers.GPT2LMHeadModel, transformers.AutoTokenizer
    return {"model": model.from_pretrained(folder), "tokenizer": tokenizer.from_pretrained(folder)}


@pytest.mark.parametrize(("kind", "name", "hint"), HINTS)
def test_a_name_of_transformers_is_answered_with_one_that_works_here(
    tiny: GPT2, theirs: dict[str, Any], kind: str, name: str, hint: str
) -> None:
    assert hasattr(theirs[kind], name) or name in LENS_HINTS
    ours: Any = {"model": tiny, "tokenizer": tiny.tokenizer}[kind]
    if name == "__call__":
        with pytest.raises(TypeError, match=re.escape(hint)):
            ours([1, 2], return_tensors="pt")
    else:
        with pytest.raises(AttributeError, match=re.escape(hint)):
            getattr(ours, name)
        assert not hasattr(ours, name)
    objects = {"model": tiny, "tokenizer": tiny.tokenizer, "numpy_gpt2": numpy_gpt2}
    paths = re.findall(r"\b(model|tokenizer|numpy_gpt2)((?:\.\w+)+)", hint)
    named = [(root, path) for root, path in paths if path != f".{name}"]
    assert named or name in ("eval", "pad_token", "generation_config")
    for root, path in named:
        value = objects[root]
        for part in path.split(".")[1:]:
            value = getattr(value, part)


def test_each_hint_is_python_where_it_shows_python() -> None:
    for _, _, hint in HINTS:
        for code in re.findall("`([^`]+)`", hint):
            ast.parse(code)


@pytest.mark.parametrize("kind", OBJECTS)
def test_other_attributes_are_as_in_any_object(tiny: GPT2, kind: str) -> None:
    value: Any = {"model": random_model(SHAPES[0]), "tokenizer": tiny.tokenizer}[kind]
    name = type(value).__name__
    with pytest.raises(AttributeError, match=f"^'{name}' object has no attribute 'hparms'") as error:
        value.hparms  # noqa: B018
    assert (error.value.name, error.value.obj) == ("hparms", value)  # so that Python can say what was meant
    value.config = 5
    assert value.config == 5
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert vars(again).keys() == vars(value).keys()
    assert not hasattr(value, "_ipython_display_")


def test_an_error_inside_a_property_is_not_hidden() -> None:
    model = random_model(SHAPES[0])
    model.params = None  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'wte'"):
        model.backend  # noqa: B018


def test_type_checkers_know_what_is_not_there() -> None:
    """A function that takes any name would hide misspelled ones from them: then mypy would not need the comments."""
    model = random_model(SHAPES[0])
    with pytest.raises(AttributeError):
        model.hparms  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError):
        model([1, 2])  # type: ignore[operator]
