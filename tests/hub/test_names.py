"""The names of models: where each comes from, and its folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from numpy_gpt2.hub.download import download
from numpy_gpt2.hub.names import NAMES, RELEASED, Source, locate, model_folder, models_folder, source
from numpy_gpt2.params import count_params
from numpy_gpt2.weights.tensorflow import HUB_NAMES

PARAMETERS = {  # as published
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_numbers_of_parameters_are_the_published_ones() -> None:
    assert {name: count_params(hparams) for name, hparams in RELEASED.items()} == PARAMETERS


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
    assert source("openai-community/gpt2@main") == source("gpt2@main") == source("gpt2")
    pinned = ("openai-community/gpt2@v1", "openai-community/gpt2", "v1")
    assert source("openai-community/gpt2@v1") == source("gpt2@v1") == pinned
    assert source("owner/name@main") == source("owner/name")


def test_the_address_of_a_page_on_the_hub_is_a_name() -> None:
    assert source("https://huggingface.co/owner/name@v1") == source("owner/name@v1")
    assert source("https://huggingface.co/openai-community/gpt2") == source("gpt2")
    assert source("https://huggingface.co/owner/name/") == source("owner/name")
    assert source("https://huggingface.co/owner/name/tree/v1") == source("owner/name@v1")
    assert source("https://elsewhere.example/owner/name") is None
    with pytest.raises(ValueError, match="https://elsewhere.example/owner/name is not the address of a model"):
        locate("https://elsewhere.example/owner/name")


def test_each_name_has_its_own_folder(tmp_path: Path) -> None:
    for name in RELEASED:
        assert model_folder(name, tmp_path) == tmp_path / name
    assert model_folder("a/b", tmp_path) == tmp_path / "a" / "b"
    assert model_folder("a/b@refs/pr/1", tmp_path) == tmp_path / "a" / "b@refs%2Fpr%2F1"
    assert model_folder(tmp_path) == tmp_path


def test_the_doors_are_each_others_twins() -> None:
    for openai, hub in HUB_NAMES.items():
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
    assert locate("a/b") is None
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert locate("a/b") == model_folder("a/b") == Path("a/b")


def test_the_folder_of_a_repository_is_no_other_folder(tmp_path: Path) -> None:
    """Where the working directory has the models, what an interrupted download left is not a user's own folder."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert locate("a/b", tmp_path) is locate("a/b", ".") is None
    shutil.copytree(model_folder("tiny"), tmp_path / "a" / "b", dirs_exist_ok=True)
    assert locate("a/b", ".") == Path("a/b")


def test_each_name_is_a_model() -> None:
    assert {source(name) for name in NAMES[1:]} == {source(name) for name in RELEASED}


def test_pyodide_keeps_models_in_its_home_and_downloads_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUMPY_GPT2_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "emscripten")
    for missing in ("platformdirs", "requests"):
        monkeypatch.setitem(sys.modules, missing, None)
    assert models_folder() == Path.home() / "numpy_gpt2" / "models"
    with pytest.raises(OSError, match="^gpt2 is not in this browser, and Pyodide cannot download it"):
        download("gpt2")
