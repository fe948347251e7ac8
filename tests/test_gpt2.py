"""The way in: what names and folders mean, and what comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from conftest import SHAPES

import numpy_gpt2
from numpy_gpt2.download import is_on_disk, model_folder
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import count_params

TINY = model_folder("tiny")


def test_the_embedded_model(tiny: GPT2) -> None:
    assert tiny.hparams == (4096, 256, 256, 4, 6)
    assert count_params(tiny.params) == 5_853_184
    assert tiny.tokenizer
    assert tiny.tokenizer.n_vocab == 4096
    assert repr(tiny).startswith("<GPT2 tiny: 5,853,184 parameters")


def test_logits_are_float32_or_as_asked(tiny: GPT2) -> None:
    assert tiny.logits([1, 2]).dtype == np.float32
    precise = numpy_gpt2.load("tiny", dtype="float64")
    assert precise.logits([1, 2]).dtype == np.float64
    np.testing.assert_allclose(tiny.logits([1, 2]), precise.logits([1, 2]), atol=1e-4)


def test_transformers_opens_the_embedded_model_too(tiny: GPT2) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(TINY, dtype=torch.float32).eval()
    ids = [464, 479, 278]
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(tiny.logits(ids), logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_a_past_of_another_model_is_refused(tiny: GPT2) -> None:
    other = numpy_gpt2.init(tiny.hparams)
    with pytest.raises(ValueError, match="this past was made for another model"):
        tiny.logits([1], other.new_past())


def test_a_random_model_of_gpt2s_vocabulary_writes_text() -> None:
    model = numpy_gpt2.init(SHAPES[1]._replace(n_vocab=50257))
    assert model.generate("Hello", max_new_tokens=5, seed=0)
    assert numpy_gpt2.init(SHAPES[1]).tokenizer is None


class TestNames:
    @pytest.fixture(autouse=True)
    def models_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "models"

    @pytest.mark.parametrize(
        ("alias", "name"),
        [("gpt2", "124M"), ("gpt2-medium", "355M"), ("gpt2-large", "774M"), ("gpt2-xl", "1558M")],
    )
    def test_an_alias_is_the_same_model(self, models_dir: Path, alias: str, name: str) -> None:
        assert model_folder(alias) == model_folder(name) == models_dir / name

    @pytest.mark.parametrize("name", ["124M", "gpt2", "distilgpt2"])
    def test_a_model_is_loaded_from_the_folder_of_its_name(self, models_dir: Path, name: str) -> None:
        shutil.copytree(TINY, model_folder(name))
        assert numpy_gpt2.load(name).hparams.n_vocab == 4096

    def test_a_folder_given_in_the_call_counts_more_than_the_environment(self, tmp_path: Path) -> None:
        shutil.copytree(TINY, tmp_path / "elsewhere" / "124M")
        assert numpy_gpt2.load("124M", models_dir=tmp_path / "elsewhere").hparams.n_vocab == 4096

    def test_without_either_models_are_in_the_users_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NUMPY_GPT2_MODELS")
        cache = platformdirs.user_cache_path("numpy_gpt2", appauthor=False)
        assert model_folder("124M") == cache / "models" / "124M"

    @pytest.mark.parametrize("spelling", ["./mine", "mine", "mine/", "{here}/mine"])
    def test_a_folder(self, tmp_path: Path, spelling: str) -> None:
        shutil.copytree(TINY, tmp_path / "mine")
        assert numpy_gpt2.load(spelling.format(here=tmp_path)).hparams.n_vocab == 4096
        assert numpy_gpt2.load(Path("mine")).hparams.n_vocab == 4096

    def test_a_name_is_no_folder(self, tmp_path: Path, models_dir: Path) -> None:
        """A folder `124M` in the current one does not change what `124M` means; `./124M` is that folder."""
        shutil.copytree(TINY, tmp_path / "124M")
        assert model_folder("124M") == models_dir / "124M"
        assert numpy_gpt2.load("./124M").hparams.n_vocab == 4096

    @pytest.mark.parametrize("name", ["125M", "", "gpt3", "tiny2", "a\0b"])
    def test_an_unknown_name_is_refused_with_the_known_ones(self, name: str) -> None:
        with pytest.raises(ValueError, match="there is no model .*tiny, 124M, 355M.*gpt2-xl"):
            numpy_gpt2.load(name)

    @pytest.fixture
    def downloaded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of the models that were downloaded, which are all tiny in truth."""
        names = []

        def download(name: str, models_dir: str | None = None) -> None:
            names.append(name)
            shutil.copytree(TINY, model_folder(name, models_dir), dirs_exist_ok=True)

        monkeypatch.setattr("numpy_gpt2.gpt2.download", download)
        return names

    def test_a_model_that_is_not_on_disk_is_downloaded(self, downloaded: list[str], tmp_path: Path) -> None:
        assert numpy_gpt2.load("gpt2").hparams.n_vocab == 4096
        assert numpy_gpt2.load("124M").hparams.n_vocab == 4096
        assert numpy_gpt2.load("124M", tmp_path / "elsewhere").hparams.n_vocab == 4096
        assert downloaded == ["124M", "124M"]

    @pytest.mark.parametrize("file", ["hparams.json", "vocab.bpe", "model.safetensors"])
    def test_so_is_one_that_is_only_partly_there(self, models_dir: Path, downloaded: list[str], file: str) -> None:
        shutil.copytree(TINY, models_dir / "124M")
        (models_dir / "124M" / "config.json").unlink()
        assert is_on_disk("124M")
        (models_dir / "124M" / file).unlink()
        assert not is_on_disk("124M")
        numpy_gpt2.load("124M")
        assert downloaded == ["124M"]

    def test_a_folder_is_never_downloaded(self, downloaded: list[str]) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder 124M"):
            numpy_gpt2.load("./124M")
        assert downloaded == []

    def test_a_home_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder ~nobody-of-this-name/model"):
            numpy_gpt2.load("~nobody-of-this-name/model")
        monkeypatch.setenv("NUMPY_GPT2_MODELS", "~nobody-of-this-name")
        assert model_folder("124M") == Path("~nobody-of-this-name/124M")
        assert not is_on_disk("124M")

    def test_the_users_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        assert model_folder("~/mine") == model_folder(Path("~/mine")) == tmp_path / "mine"

    @pytest.mark.parametrize("folder", ["./nowhere", "./124M", Path("tiny")], ids=str)
    def test_a_folder_that_does_not_exist(self, folder: str | Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder (nowhere|124M|tiny)"):
            numpy_gpt2.load(folder)

    def test_a_vocabulary_of_another_size(self, tmp_path: Path) -> None:
        folder = tmp_path / "mixed"
        shutil.copytree(TINY, folder)
        for file in ("encoder.json", "vocab.bpe"):
            shutil.copy(TINY.parent / "gpt2" / file, folder / file)
        with pytest.raises(ValueError, match="the vocabulary has 50257 tokens, but the hyper-parameters say 4096"):
            numpy_gpt2.load(folder)


def test_what_the_package_exports() -> None:
    for name in numpy_gpt2.__all__:
        assert getattr(numpy_gpt2, name)
        assert name in dir(numpy_gpt2)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = numpy_gpt2.nothing
