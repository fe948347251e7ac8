"""The table of models, and what it says could be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from numpy_gpt2.hub.listing import describe_models, repositories
from numpy_gpt2.hub.names import NAMES, model_folder

TINY = model_folder("tiny")


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a model with a name on the disk."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    return lambda name: shutil.copytree(TINY, model_folder(name, tmp_path))


def listed(tmp_path: Path) -> tuple[list[str], list[str]]:
    """The lines about models, and those about what could be deleted."""
    lines = describe_models(NAMES, str(tmp_path)).splitlines()
    return lines[: len(NAMES)], lines[len(NAMES) :]


def test_both_doors_are_listed(put: Callable[[str], Path], tmp_path: Path) -> None:
    folder = put("gpt2-medium")
    lines, spare = listed(tmp_path)
    assert f"gpt2-medium   8.66MB  {folder}" in lines
    assert "355M               -  1.42GB to download, with TensorFlow" in lines
    assert "gpt2-xl            -  6.43GB to download" in lines  # as the hub lists its model.safetensors
    assert spare == []


def test_a_model_that_is_there_through_both_doors_could_be_deleted(put: Callable[[str], Path], tmp_path: Path) -> None:
    twin = put("gpt2")
    folder = put("124M")
    put("774M")
    line = f"could be deleted: {folder} (8.66MB), the same weights as gpt2 in {twin}"
    assert listed(tmp_path)[1] == [line]
    (twin / "model.safetensors").write_bytes(b"damaged")
    assert listed(tmp_path)[1] == []


def test_a_checkpoint_that_has_been_converted_could_be_deleted(put: Callable[[str], Path], tmp_path: Path) -> None:
    folder = put("124M")
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (folder / name).write_bytes(bytes(1000))
    line = f"could be deleted: {folder}/model.ckpt.* (2.00kB), converted to model.safetensors beside them"
    assert listed(tmp_path)[1] == [line]
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert listed(tmp_path)[1] == []


def test_another_model_on_the_hub(put: Callable[[str], Path], tmp_path: Path) -> None:
    assert describe_models(["owner/name"], str(tmp_path)) == "owner/name         -  a model to download"
    folder = put("owner/name")
    assert describe_models(["owner/name"], str(tmp_path)) == f"owner/name    8.66MB  {folder}"
    put("owner/name@refs/pr/1")
    put("gpt2")
    for other in ("my stuff/x y", ".git/foo", "gpt2/onnx", "owner/.numpy_gpt2.saved", "openai-community/gpt2"):
        (tmp_path / other).mkdir(parents=True, exist_ok=True)
        shutil.copy(TINY / "hparams.json", tmp_path / other / "config.json")
    assert repositories(str(tmp_path)) == ["owner/name", "owner/name@refs/pr/1"]
    assert repositories(str(tmp_path / "nowhere")) == []
