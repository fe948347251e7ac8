"""The names of models: where each comes from, and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from numpy_gpt2.hub.names import NAMES, PARAMETERS, TWINS, Source, model_folder, source
from numpy_gpt2.params import HParams, count_params

SHAPES = {
    "124M": (768, 12, 12),
    "355M": (1024, 16, 24),
    "774M": (1280, 20, 36),
    "1558M": (1600, 25, 48),
    "distilgpt2": (768, 12, 6),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_numbers_of_parameters_follow_from_the_shapes(name: str) -> None:
    assert PARAMETERS[name] == count_params(HParams(50257, 1024, *SHAPES[TWINS.get(name, name)]))


def address(name: str, base_url: str | None = None) -> str:
    named = source(name)
    assert named
    return named.address(base_url)


def test_the_addresses_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, openai = "https://huggingface.co", "https://openaipublic.blob.core.windows.net/gpt-2/models"
    assert address("355M") == f"{openai}/355M"
    assert address("gpt2") == f"{hub}/openai-community/gpt2/resolve/main"
    assert address("gpt2-xl") == f"{hub}/openai-community/gpt2-xl/resolve/main"
    assert address("distilgpt2") == f"{hub}/distilbert/distilgpt2/resolve/main"
    assert address("a-b/c.d@refs/pr/1") == f"{hub}/a-b/c.d/resolve/refs%2Fpr%2F1"
    assert address("a/b@v1", "http://mirror/") == "http://mirror/a/b@v1"
    monkeypatch.setenv("HF_ENDPOINT", "http://elsewhere/")
    assert address("gpt2-large") == "http://elsewhere/openai-community/gpt2-large/resolve/main"
    assert address("774M").startswith(openai)


def test_a_released_model_by_the_name_of_its_repository() -> None:
    assert source("openai-community/gpt2") == source("gpt2") == Source("gpt2", "openai-community/gpt2")
    assert source("distilbert/distilgpt2") == source("distilgpt2")
    pinned = source("openai-community/gpt2@v1")
    assert pinned == ("openai-community/gpt2@v1", "openai-community/gpt2", "v1")


def test_each_name_has_its_own_folder(tmp_path: Path) -> None:
    for name in PARAMETERS:
        assert model_folder(name, tmp_path) == tmp_path / name
    assert model_folder("a/b", tmp_path) == tmp_path / "a" / "b"
    assert model_folder("a/b@refs/pr/1", tmp_path) == tmp_path / "a" / "b@refs%2Fpr%2F1"
    assert model_folder(tmp_path) == tmp_path


def test_the_doors_are_each_others_twins() -> None:
    for hub, openai in TWINS.items():
        assert source(hub).twin == source(openai)  # type: ignore[union-attr]
        assert source(openai).twin == source(hub)  # type: ignore[union-attr]
    assert source("distilgpt2").twin is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "folder", ["./a/b", "/a/b", "../b", "~/b", "a/b/c", "a/b/", "a/../b", "a//b", "a/b@", "a/b@../c", "-a/b", "a/é"]
)
def test_what_cannot_be_a_repository_is_a_folder(folder: str) -> None:
    assert source(folder) is None
    assert source(Path("a/b")) is None


def test_a_folder_takes_precedence_over_a_repository(tmp_path: Path) -> None:
    assert source("a/b")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert source("a/b") is None
    assert model_folder("a/b") == Path("a/b")
    assert {source(name) for name in NAMES[1:]} == {source(name) for name in PARAMETERS}
