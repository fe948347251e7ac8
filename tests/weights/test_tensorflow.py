"""OpenAI's checkpoints, written by TensorFlow's own Saver: what is read, and which damage is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import random_model
from model_files import (
    DATA_FILE,
    HPARAMS,
    INDEX_FILE,
    assert_same_parameters,
    openai_variables,
    write_openai_folder,
    write_tensorflow_checkpoint,
)

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model(HPARAMS, "float32")


@pytest.fixture(scope="module")
def pristine(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in OpenAI's layout."""
    folder = tmp_path_factory.mktemp("pristine")
    write_openai_folder(folder, model)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "model")


class TestCurrentCheckpoint:
    @pytest.mark.parametrize(
        "path",
        ["model.ckpt", "/somewhere/else/124M/model.ckpt", "../run/model.ckpt", "C:\\\\\\\\models\\\\\\\\model.ckpt"],
    )
    def test_of_the_path_in_the_file_checkpoint_only_the_last_part_counts(
        self, folder: Path, model: GPT2, path: str
    ) -> None:
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n')
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_the_file_checkpoint_names_the_current_one(self, folder: Path, model: GPT2) -> None:
        other = random_model(HPARAMS, "float32", seed=1)
        write_tensorflow_checkpoint(folder, openai_variables(other), name="model-500")
        assert_same_parameters(numpy_gpt2.load(folder), other)
        (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_without_the_file_checkpoint_it_is_model_ckpt(self, folder: Path, model: GPT2) -> None:
        (folder / "checkpoint").unlink()
        assert_same_parameters(numpy_gpt2.load(folder), model)


class TestTensorFlow:
    def test_without_tensorflow_the_message_says_what_to_install(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(ImportError, match=r'needs TensorFlow: pip install "numpy_gpt2\[weights\]"'):
            numpy_gpt2.load(folder)

    def test_tensorflow_prints_nothing(self, folder: Path) -> None:
        code = f"import numpy_gpt2; numpy_gpt2.load({str(folder)!r}); print('done')"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("done\n", "")


class TestDamage:
    """Damage is reported in a sentence, and nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, folder: Path) -> Iterator[None]:
        yield
        assert not (folder / "model.safetensors").exists()
        assert not (folder / "config.json").exists()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_variable_holds_nan_or_infinity(self, folder: Path, model: GPT2, value: float) -> None:
        variables = openai_variables(model)
        variables["model/wpe"] = variables["model/wpe"].copy()
        variables["model/wpe"][3, 4] = value
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(ValueError, match="model/wpe holds NaN or infinity"):
            numpy_gpt2.load(folder)

    def test_a_variable_holds_whole_numbers(self, folder: Path, model: GPT2) -> None:
        variables = openai_variables(model)
        variables["model/wpe"] = np.ones((7, 12), np.int32)
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(ValueError, match="model/wpe has the type int32, not a float type"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -4])
    @pytest.mark.parametrize("file", [INDEX_FILE, DATA_FILE])
    def test_a_file_is_cut_short(self, folder: Path, file: str, keep: float) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
        with pytest.raises(ValueError, match=r"model\.ckpt.*(cut short|missing)"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("position", [0, 10, 0.3, 0.5, 0.9, -1])
    @pytest.mark.parametrize("file", [INDEX_FILE, DATA_FILE])
    def test_a_byte_is_wrong(self, folder: Path, file: str, position: float) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(position * len(content)) if 0 < position < 1 else int(position)] ^= 0x55
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.ckpt.*damaged"):
            numpy_gpt2.load(folder)

    def test_the_data_file_is_missing(self, folder: Path) -> None:
        (folder / DATA_FILE).unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b'model_checkpoint_path: ""', b"\xff\xfe\x00"])
    def test_the_file_checkpoint_names_no_checkpoint(self, folder: Path, content: bytes) -> None:
        (folder / "checkpoint").write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint (does not name a checkpoint|is not text)"):
            numpy_gpt2.load(folder)
