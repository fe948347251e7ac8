"""The user's Hugging Face cache, made by `huggingface_hub` itself, from a double of the hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model
from released_models import HPARAMS, REPOSITORIES, hub_files
from server import COMMIT, Hub, serving

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub import huggingface
from numpy_gpt2.hub.download import download
from numpy_gpt2.hub.listing import describe_models
from numpy_gpt2.hub.names import is_on_disk, locate, model_folder

IDS = [5, 6, 7]
FETCH = """
import sys
from huggingface_hub import hf_hub_download
for line in sys.stdin.read().splitlines():
    cache, repository, revision, name = line.split()
    hf_hub_download(repository, name, revision=revision, cache_dir=cache)
"""
CACHED = [*((repository, "main") for repository in (*REPOSITORIES, "gpt2", "owner/model")), ("owner/model", COMMIT)]


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model(HPARAMS, "float32")


@pytest.fixture(scope="module")
def files(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return hub_files(model, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def caches(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache for each of CACHED, with the files that transformers would have fetched."""
    pytest.importorskip("huggingface_hub")
    folder = tmp_path_factory.mktemp("caches")
    hub = Hub(dict.fromkeys((repository for repository, _ in CACHED), files))
    with serving(hub.elsewhere_store) as hub.elsewhere, serving(hub) as url:
        lines = [
            f"{folder}/{i} {repository} {revision} {name}"
            for i, (repository, revision) in enumerate(CACHED)
            for name in files
        ]
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "HF_HOME": str(folder)}
        args = [sys.executable, "-c", FETCH]
        result = subprocess.run(args, env=env, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(autouse=True)
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, and a user who has nothing yet."""
    for variable in ("NUMPY_GPT2_BASE_URL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    hub = Hub({**dict.fromkeys(REPOSITORIES, files), "owner/model": files})
    with serving(hub.elsewhere_store) as hub.elsewhere, serving(hub) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield hub


@pytest.fixture
def fill_cache(caches: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes one of the caches that of the user, and returns the folder of the model in it."""

    def fill(repository: str, revision: str = "main") -> Path:
        cache = tmp_path / "home" / ".cache" / "huggingface" / "hub"
        shutil.copytree(caches / str(CACHED.index((repository, revision))), cache, symlinks=True)
        (snapshot,) = cache.glob("models--*/snapshots/*")
        assert snapshot.name == COMMIT
        return snapshot

    return fill


@pytest.mark.parametrize(
    ("name", "repository"),
    [("gpt2", "openai-community/gpt2"), ("gpt2", "gpt2"), ("distilgpt2", REPOSITORIES[-1]), ("owner/model",) * 2],
)
def test_a_model_in_the_cache_is_used_from_there(
    hub: Hub, fill_cache: Callable[..., Path], model: GPT2, tmp_path: Path, name: str, repository: str
) -> None:
    snapshot = fill_cache(repository)
    np.testing.assert_array_equal(numpy_gpt2.load(name).logits(IDS), model.logits(IDS))
    assert download(name) == locate(name) == snapshot
    assert str(snapshot) in describe_models([name])
    assert hub.requests == []
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_the_cache_may_be_elsewhere(
    fill_cache: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    snapshot = fill_cache("openai-community/gpt2")
    monkeypatch.setenv(variable, str(tmp_path / "xdg") if variable == "XDG_CACHE_HOME" else "~/elsewhere")
    assert locate("gpt2") is None
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shutil.copytree(snapshot.parents[2], result.stdout.strip(), symlinks=True)
    assert locate("gpt2") == Path(result.stdout.strip(), *snapshot.parts[-3:])


def test_openais_name_uses_it_too(
    fill_cache: Callable[..., Path], model: GPT2, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fill_cache("openai-community/gpt2")
    with caplog.at_level("DEBUG", "numpy_gpt2"):
        np.testing.assert_array_equal(numpy_gpt2.load("124M").logits(IDS), model.logits(IDS))
    assert caplog.messages[0].startswith(f"124M is in {snapshot}: ")
    assert not is_on_disk("355M")


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_pinned_version(fill_cache: Callable[..., Path], revision: str) -> None:
    snapshot = fill_cache("owner/model", revision=revision)
    assert locate(f"owner/model@{COMMIT}") == snapshot
    assert locate("owner/model") == (snapshot if revision == "main" else None)
    assert locate("owner/model@other") is None


def test_a_cache_with_only_some_of_the_files_is_not_used(fill_cache: Callable[..., Path]) -> None:
    (fill_cache("openai-community/gpt2") / "merges.txt").unlink()
    assert not is_on_disk("gpt2")
    assert download("gpt2") == model_folder("gpt2")
    assert is_on_disk("gpt2")


def test_a_damaged_cache_is_not_used_by_download(fill_cache: Callable[..., Path]) -> None:
    snapshot = fill_cache("openai-community/gpt2")
    blob = (snapshot / "merges.txt").resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="merges.txt"):
        numpy_gpt2.load("gpt2")
    assert download("gpt2") == model_folder("gpt2")
    assert numpy_gpt2.load("gpt2")


def test_with_a_folder_download_fetches_into_that_folder(fill_cache: Callable[..., Path], tmp_path: Path) -> None:
    fill_cache("openai-community/gpt2")
    assert download("gpt2", tmp_path / "here") == tmp_path / "here" / "gpt2"
    assert is_on_disk("gpt2", tmp_path / "here")


def test_an_own_folder_goes_before_the_cache(fill_cache: Callable[..., Path]) -> None:
    fill_cache("openai-community/gpt2")
    shutil.copytree(model_folder("tiny"), model_folder("gpt2"))
    assert locate("gpt2") == model_folder("gpt2")


@pytest.mark.parametrize("reference", ["", "../../..", "nonsense", "é" * 40])
def test_a_reference_that_names_no_version(fill_cache: Callable[..., Path], reference: str) -> None:
    snapshot = fill_cache("openai-community/gpt2")
    (snapshot.parents[1] / "refs" / "main").write_text(reference, encoding="utf-8")
    assert huggingface.cached("openai-community/gpt2", "main") is None
    assert not is_on_disk("gpt2")


def test_the_token_is_that_of_huggingface_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert huggingface.token() is None
    folder = tmp_path / "home" / ".cache" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "token").write_text("from the file"[-4:] + "\n")
    code = "import huggingface_hub; print(huggingface_hub.get_token())"
    for variable, value in ((None, ""), ("HF_TOKEN", " fromenv\n")):
        if variable:
            monkeypatch.setenv(variable, value)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert huggingface.token() == result.stdout.strip()
