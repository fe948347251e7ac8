"""The names of the released models, and their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from numpy_gpt2.hub.names import ALIASES, NAMES, PARAMETERS, model_folder, model_name
from numpy_gpt2.params import HParams, count_params


@pytest.mark.parametrize(
    ("name", "shape"),
    {
        "124M": (768, 12, 12),
        "355M": (1024, 16, 24),
        "774M": (1280, 20, 36),
        "1558M": (1600, 25, 48),
        "distilgpt2": (768, 12, 6),
    }.items(),
)
def test_the_numbers_of_parameters_follow_from_the_shapes(name: str, shape: tuple[int, int, int]) -> None:
    assert PARAMETERS[name] == count_params(HParams(50257, 1024, *shape))


def test_a_name_and_its_alias_have_the_same_folder(tmp_path: Path) -> None:
    for alias, name in ALIASES.items():
        assert name in NAMES
        assert model_name(alias) == model_name(name) == name
        assert model_folder(alias, tmp_path) == model_folder(name, tmp_path) == tmp_path / name
    assert model_name(tmp_path) is None
    assert model_folder(tmp_path) == tmp_path
