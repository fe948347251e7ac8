"""Model folders: converted from OpenAI's checkpoints, saved by transformers or by us, and whatever can be wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config, in_pytorch, random_ids, random_model
from log_messages import on_message
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
from numpy_gpt2.params import Array, HParams, Params, named_arrays
from numpy_gpt2.weights.folder import holds_model, hugging_face_name, read_tensors
from numpy_gpt2.weights.safetensors import open_file
from numpy_gpt2.weights.tensorflow import CheckpointReader


def state_dict(model: GPT2, prefix: str = "transformer.") -> dict[str, Array]:
    """The arrays of a model, with the names that Hugging Face gives them."""
    return {prefix + hugging_face_name(name): array for name, array in named_arrays(model.params)}


def write_safetensors(file: Path, model: GPT2) -> None:
    pytest.importorskip("safetensors.numpy").save_file(state_dict(model), file)


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
    """A copy of the folder that a test may change."""
    return shutil.copytree(pristine, tmp_path / "model")


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which no file can be opened to write to it."""
    open_path, open_descriptor = Path.open, os.open

    def refuse_path(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode.startswith("r") or self == Path(os.devnull):
            return open_path(self, mode, *args, **kwargs)
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    def refuse_descriptor(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open_descriptor(path, flags, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse_path)
    monkeypatch.setattr("os.open", refuse_descriptor)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, the disk is full when a file is flushed to it."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)


class TestConversion:
    def test_the_parameters_of_the_checkpoint_are_loaded(self, folder: Path, model: GPT2) -> None:
        loaded = numpy_gpt2.load(folder)
        assert loaded.hparams == HPARAMS
        assert_same_parameters(loaded, model)

    def test_later_loads_need_no_tensorflow(self, folder: Path, model: GPT2, no_tensorflow: None) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delitem(sys.modules, "tensorflow")
            numpy_gpt2.load(folder)
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_later_loads_need_no_checkpoint(self, folder: Path, model: GPT2) -> None:
        numpy_gpt2.load(folder)
        for file in folder.glob("model.ckpt*"):
            file.unlink()
        assert_same_parameters(numpy_gpt2.load(folder), model)
        (folder / "checkpoint").unlink()
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_transformers_opens_a_converted_folder(self, folder: Path, model: GPT2) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.load(folder)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        ids = random_ids(HPARAMS, 2, 7)
        with torch.no_grad():
            logits = theirs(torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(model.logits(ids), logits, rtol=0, atol=1e-5 * np.abs(logits).max())

    def test_safetensors_reads_a_converted_file(self, folder: Path, model: GPT2) -> None:
        from safetensors import safe_open

        numpy_gpt2.load(folder)
        index = (folder / "model.ckpt.index").read_bytes()
        with safe_open(folder / "model.safetensors", framework="np") as file:
            assert file.metadata()["format"] == "pt"  # older versions of transformers require it
            assert file.metadata()["numpy_gpt2.index_size"] == str(len(index))
            assert file.metadata()["numpy_gpt2.index_sha256"] == hashlib.sha256(index).hexdigest()
            assert len(list(file.keys())) == 4 + 12 * HPARAMS.n_layer
            weight = file.get_tensor("transformer.h.1.mlp.c_fc.weight")
        np.testing.assert_array_equal(weight, model.params.h[1].mlp.c_fc.w)

    def test_the_files_have_the_usual_permissions(self, folder: Path) -> None:
        numpy_gpt2.load(folder)
        (folder / "other").touch()
        for file in ("model.safetensors", "config.json"):
            assert (folder / file).stat().st_mode == (folder / "other").stat().st_mode

    def test_a_changed_checkpoint_is_converted_again(self, folder: Path) -> None:
        numpy_gpt2.load(folder)
        other = random_model(HPARAMS, "float32", seed=1)
        write_tensorflow_checkpoint(folder, openai_variables(other))
        assert_same_parameters(numpy_gpt2.load(folder), other)

    def test_an_unchanged_checkpoint_is_not_converted_again(self, folder: Path) -> None:
        numpy_gpt2.load(folder)
        before = (folder / "model.safetensors").stat()
        numpy_gpt2.load(folder)
        after = (folder / "model.safetensors").stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

    def test_a_safetensors_file_not_converted_here_is_used_and_never_overwritten(self, folder: Path) -> None:
        other = random_model(HPARAMS, "float32", seed=1)
        write_safetensors(folder / "model.safetensors", other)
        before = (folder / "model.safetensors").read_bytes()
        assert_same_parameters(numpy_gpt2.load(folder), other)
        assert (folder / "model.safetensors").read_bytes() == before

    def test_a_config_not_written_here_is_never_overwritten(self, folder: Path) -> None:
        hugging_face_config(HPARAMS).save_pretrained(folder)
        before = (folder / "config.json").read_bytes()
        numpy_gpt2.load(folder)
        write_tensorflow_checkpoint(folder, openai_variables(random_model(HPARAMS, "float32", seed=1)))
        numpy_gpt2.load(folder)
        assert (folder / "config.json").read_bytes() == before

    def test_a_config_that_disagrees_with_the_hyperparameters_of_a_new_checkpoint_is_refused(
        self, folder: Path
    ) -> None:
        numpy_gpt2.load(folder)
        longer = HPARAMS._replace(n_ctx=9)
        (folder / "hparams.json").write_text(json.dumps(longer._asdict()))
        write_tensorflow_checkpoint(folder, openai_variables(random_model(longer, "float32")))
        with pytest.raises(ValueError, match=r"config\.json beside it describe two different models: remove one"):
            numpy_gpt2.load(folder)
        (folder / "config.json").unlink()
        assert numpy_gpt2.load(folder).hparams == longer
        assert json.loads((folder / "config.json").read_text())["n_positions"] == 9

    def test_two_conversions_at_once(self, folder: Path, model: GPT2) -> None:
        code = f"import numpy_gpt2; numpy_gpt2.load({str(folder)!r})"
        both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        assert_same_parameters(numpy_gpt2.load(folder), model)
        assert not [*folder.glob("*.part")]

    def test_a_second_conversion_waits_and_uses_the_result_of_the_first(
        self, folder: Path, model: GPT2, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="numpy_gpt2.weights.folder")
        loaded: list[GPT2] = []
        messages: list[str] = []
        second_waits = threading.Event()  # or has ended

        def load() -> None:
            try:
                loaded.append(numpy_gpt2.load(folder))
            finally:
                second_waits.set()

        second = threading.Thread(target=load)

        def start_the_second(message: str) -> None:
            messages.append(message)
            if len(messages) == 1:
                second.start()
                second_waits.wait()

        with (
            on_message("numpy_gpt2.weights.folder", start_the_second),
            on_message("numpy_gpt2.machine.files", lambda message: second_waits.set()),
        ):
            numpy_gpt2.load(folder)
            second.join()
        assert_same_parameters(loaded[0], model)
        assert messages == [f"converting {folder / 'model.ckpt'} to model.safetensors, which is done once"]

    def test_only_one_array_at_a_time_is_in_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the reader is asked for an array, at most the one before it is still alive."""
        returned: list[Any] = []
        original = CheckpointReader.read

        def read(*args: Any) -> Array:
            assert [reference for reference in returned[:-1] if reference() is not None] == []
            array = np.array(original(*args))
            returned.append(weakref.ref(array))
            return array

        monkeypatch.setattr(CheckpointReader, "read", read)
        numpy_gpt2.load(folder)
        assert len(returned) == 4 + 12 * HPARAMS.n_layer

    def test_the_vocabulary_is_written_as_well(self, folder: Path) -> None:
        transformers = pytest.importorskip("transformers")
        loaded = numpy_gpt2.load(folder)
        assert loaded.tokenizer
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert theirs.encode("Once upon a time<|endoftext|>") == loaded.tokenizer.encode(
            "Once upon a time<|endoftext|>", allow_special=True
        )
        assert theirs.model_max_length == HPARAMS.n_ctx

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_in_a_read_only_folder_the_model_runs_from_memory_with_a_warning(
        self, folder: Path, model: GPT2, dtype: str, read_only: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = sorted(folder.iterdir())
        loaded = numpy_gpt2.load(folder, dtype=dtype)
        assert loaded.params.wte.dtype == dtype
        assert_same_parameters(loaded, model)
        assert (
            "model.safetensors cannot be written (Read-only file system); the model runs from memory, and TensorFlow "
            "must read the checkpoint each time" in caplog.text
        )
        assert sorted(folder.iterdir()) == before

    def test_a_disk_that_fills_up_leaves_nothing_behind(
        self, folder: Path, model: GPT2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = sorted(folder.iterdir())
        fill_disk(monkeypatch)
        assert_same_parameters(numpy_gpt2.load(folder), model)
        assert sorted(folder.iterdir()) == [folder / ".lock", *before]

    def test_variables_of_the_optimizer_are_ignored(self, folder: Path, model: GPT2) -> None:
        moments = {
            f"{name}/Adam": np.zeros_like(array) for name, array in openai_variables(model).items() if "h0" in name
        }
        write_tensorflow_checkpoint(
            folder, {**openai_variables(model), **moments, "global_step": np.array(5, np.int64)}
        )
        assert_same_parameters(numpy_gpt2.load(folder), model)


CONVERT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from numpy_gpt2.params import HParams
from numpy_gpt2.tokenizer import Tokenizer
from numpy_gpt2.weights import tensorflow
from numpy_gpt2.weights.folder import load_params

folder, kill_at, hparams = Path(sys.argv[1]), int(sys.argv[2]), HParams(*map(int, sys.argv[3:]))

class Reader:  # stands in for TensorFlow, which takes seconds to start
    def __init__(self, checkpoint):
        self.variables = dict(np.load(folder / "variables.npz"))
        self.shapes = {name: array.shape for name, array in self.variables.items()}
    def read(self, name, shape):
        return self.variables["model/" + name].reshape(shape)

tensorflow.CheckpointReader = Reader
tokenizer = Tokenizer.load(folder)
steps = 0

def count(frame, event, arg):  # counts every line, call and return in the package
    global steps
    if "numpy_gpt2" not in frame.f_code.co_filename:
        return None
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return count

sys.settrace(count)
load_params(folder, hparams, tokenizer)
sys.settrace(None)
print(steps)
"""


def run_conversion(folder: Path, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
    """Converts in a process of its own, which is killed at this step."""
    args = [sys.executable, "-c", CONVERT, str(folder), str(kill_at), *map(str, HPARAMS)]
    return subprocess.run(args, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
@pytest.mark.parametrize("n_kills", [10, pytest.param(100, marks=pytest.mark.slow(reason="a hundred processes"))])
def test_a_killed_conversion_leaves_no_partial_file_that_counts_as_complete(
    folder: Path, model: GPT2, tmp_path: Path, n_kills: int
) -> None:
    np.savez(folder / "variables.npz", allow_pickle=False, **openai_variables(model))
    shutil.copytree(folder, tmp_path / "undisturbed")
    n_steps = int(run_conversion(tmp_path / "undisturbed").stdout)
    written = {file.name: file.read_bytes() for file in (tmp_path / "undisturbed").iterdir()}
    steps = random.Random(n_kills).sample(range(1, n_steps), n_kills)
    for kill_at in steps:
        result = run_conversion(folder, kill_at)
        assert result.returncode == -9, result.stderr
        file = folder / "model.safetensors"
        assert not file.exists() or file.read_bytes() == written[file.name]
        file.unlink(missing_ok=True)
    assert run_conversion(folder).returncode == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == written


@pytest.mark.parametrize("file", ["hparams.json", "encoder.json", "vocab.bpe", INDEX_FILE, DATA_FILE])
def test_a_folder_holds_a_model_if_every_file_it_needs_is_there(folder: Path, file: str) -> None:
    assert holds_model(folder)
    (folder / file).unlink()
    assert not holds_model(folder)


def test_a_folder_whose_checkpoint_has_no_name_holds_no_model(folder: Path) -> None:
    (folder / "checkpoint").write_text("nonsense")
    assert not holds_model(folder)


class TestUnfitCheckpoints:
    """A checkpoint that does not fit the hyperparameters is refused with a sentence, and nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, folder: Path) -> Iterator[None]:
        yield
        assert not (folder / "model.safetensors").exists()
        assert not (folder / "config.json").exists()

    @pytest.mark.parametrize("missing", ["model/wte", "model/h1/attn/c_attn/w", "model/ln_f/b"])
    def test_a_variable_is_missing(self, folder: Path, model: GPT2, missing: str) -> None:
        variables = openai_variables(model)
        del variables[missing]
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(ValueError, match=f"the array {missing} is missing"):
            numpy_gpt2.load(folder)

    def test_a_variable_has_another_shape(self, folder: Path, model: GPT2) -> None:
        variables = openai_variables(model)
        name = "model/h0/mlp/c_fc/w"
        variables[name] = np.swapaxes(variables[name], 1, 2)
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(
            ValueError, match=rf"{name} has the shape \[1, 48, 12\], but the hyperparameters ask for \[1, 12, 48\]"
        ):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"n_embd": 24}, r"model/wte has the shape \[4096, 12\]"),
            ({"n_ctx": 8}, r"model/wpe has the shape \[7, 12\]"),
            ({"n_layer": 3}, "model.ckpt holds 2 blocks, but the hyperparameters say 3"),
            ({"n_layer": 1}, "model.ckpt holds 2 blocks, but the hyperparameters say 1"),
            ({"n_layer": 10**15}, "model.ckpt holds 2 blocks, but the hyperparameters say 1000000000000000"),
        ],
        ids=str,
    )
    def test_the_hyperparameters_are_those_of_another_model(
        self, folder: Path, change: dict[str, int], complaint: str
    ) -> None:
        (folder / "hparams.json").write_text(json.dumps({**HPARAMS._asdict(), **change}))
        with pytest.raises(ValueError, match=complaint):
            numpy_gpt2.load(folder)

    def test_the_index_is_missing(self, folder: Path) -> None:
        (folder / INDEX_FILE).unlink()
        with pytest.raises(FileNotFoundError, match="neither model.safetensors nor model.ckpt.index"):
            numpy_gpt2.load(folder)

    def test_there_are_no_parameters(self, folder: Path) -> None:
        for file in (*folder.glob("model.ckpt*"), folder / "checkpoint"):
            file.unlink()
        with pytest.raises(
            FileNotFoundError, match="holds no parameters: neither model.safetensors nor model.ckpt.index"
        ):
            numpy_gpt2.load(folder)


def read(file: Path, hparams: HParams = HPARAMS) -> Params:
    return read_tensors(file, open_file(file)[1], hparams)


class TestTensors:
    """The arrays in a `model.safetensors`."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "model.safetensors"

    @pytest.fixture
    def save(self, file: Path) -> Callable[[dict[str, Array]], None]:
        """Writes arrays to the file with the format's own library."""
        save_file = pytest.importorskip("safetensors.numpy").save_file
        return lambda arrays: save_file(arrays, file)

    @pytest.mark.parametrize("prefix", ["", "transformer."])
    def test_names_with_and_without_prefix_and_with_masks(
        self, file: Path, model: GPT2, prefix: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        """Older files hold the causal masks as well."""
        masks: dict[str, Array] = {
            f"{prefix}h.0.attn.bias": np.tril(np.ones((1, 1, 7, 7), np.uint8)),
            f"{prefix}h.1.attn.masked_bias": np.array(-1e4, np.float32),
        }
        save({**state_dict(model, prefix), **masks})
        assert_same_parameters(model, GPT2(HPARAMS, read(file), None, ""))

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"n_layer": 3}, "holds 2 blocks, but the hyperparameters say 3"),
            ({"n_layer": 1}, "holds 2 blocks, but the hyperparameters say 1"),
            ({"n_layer": 10**15}, "holds 2 blocks, but the hyperparameters say 1000000000000000"),
            ({"n_ctx": 9}, r"wpe\.weight has the shape \[7, 12\], but the hyperparameters ask for \[9, 12\]"),
        ],
        ids=str,
    )
    def test_arrays_that_do_not_fit_the_hyperparameters(
        self, file: Path, model: GPT2, change: dict[str, int], complaint: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save(state_dict(model))
        with pytest.raises(ValueError, match=rf"model\.safetensors.*{complaint}"):
            read(file, HPARAMS._replace(**change))

    def test_as_many_blocks_as_a_number_says_take_no_memory(
        self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]
    ) -> None:
        """Neither in the hyperparameters nor in the name of an array."""
        for number in ("999999999", "9" * 5000):
            save({**state_dict(model), f"transformer.h.{number}.ln_1.weight": np.ones(12, np.float32)})
            tracemalloc.start()
            with pytest.raises(ValueError, match="holds 3 blocks, but the hyperparameters say 1000000000"):
                read(file, HPARAMS._replace(n_layer=10**9))
            assert tracemalloc.get_traced_memory()[1] < 10**6
            tracemalloc.stop()
        with pytest.raises(ValueError, match=r"the array transformer\.h\.2\.ln_1\.weight is missing"):
            read(file, HPARAMS._replace(n_layer=3))

    def test_an_array_is_missing(self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]) -> None:
        arrays = state_dict(model)
        del arrays["transformer.h.1.mlp.c_fc.bias"]
        save(arrays)
        with pytest.raises(ValueError, match=r"the array transformer\.h\.1\.mlp\.c_fc\.bias is missing"):
            read(file)

    def test_an_array_of_whole_numbers_is_refused(
        self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save({**state_dict(model), "transformer.wpe.weight": np.ones((7, 12), np.int32)})
        with pytest.raises(ValueError, match=r"the array transformer\.wpe\.weight: it has the type I32, not a float"):
            read(file)

    def test_a_separate_output_head_is_refused(
        self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save({**state_dict(model), "lm_head.weight": model.params.wte.copy()})
        assert_same_parameters(model, GPT2(HPARAMS, read(file), None, ""))
        for other in (model.params.wte + 1, model.params.wte[:-1]):
            save({**state_dict(model), "lm_head.weight": other})
            with pytest.raises(ValueError, match=r"lm_head\.weight differs from wte, but GPT-2's output head is"):
                read(file)

    @pytest.mark.parametrize(
        "name",
        ["score.weight", "transformer.h.0.crossattention.c_attn.weight", "transformer.h.0.attn.c_attn.lora_A", "x"],
    )
    def test_an_array_of_another_kind_of_model_is_named(
        self, file: Path, model: GPT2, name: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save({**state_dict(model), name: np.ones(3, np.float32)})
        with pytest.raises(ValueError, match=f"the array {name} is no part of GPT-2"):
            read(file)


class TestHuggingFace:
    """Folders that transformers' `save_pretrained` wrote, and folders of ours opened by its `from_pretrained`."""

    @pytest.mark.parametrize("hparams", [*SHAPES, HPARAMS], ids=str)
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
    def test_round_trip(self, tmp_path: Path, hparams: HParams, dtype: str, tolerance: float) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        ids = random_ids(hparams, 2, hparams.n_ctx)

        theirs = in_pytorch(random_model(hparams, dtype))
        theirs.save_pretrained(tmp_path / "theirs")
        ours = numpy_gpt2.load(tmp_path / "theirs", dtype=dtype)
        assert ours.hparams == hparams
        with torch.no_grad():
            expected = theirs(torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(ours.logits(ids), expected, rtol=0, atol=tolerance * np.abs(expected).max())

        numpy_gpt2.save(ours, tmp_path / "ours")
        again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
        assert str(again.dtype) == f"torch.{dtype}"
        with torch.no_grad():
            actual = again(torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
        assert_same_parameters(numpy_gpt2.load(tmp_path / "ours", dtype=dtype), ours)

    @pytest.mark.parametrize("kind", ["GPT2Model", "GPT2DoubleHeadsModel"])
    def test_other_classes_with_the_same_language_model(self, tmp_path: Path, model: GPT2, kind: str) -> None:
        pytest.importorskip("torch")
        theirs = getattr(pytest.importorskip("transformers"), kind)(hugging_face_config(HPARAMS))
        theirs.base_model.load_state_dict(in_pytorch(model).transformer.state_dict())
        theirs.save_pretrained(tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), model)

    def test_a_model_in_several_files(self, tmp_path: Path, model: GPT2) -> None:
        in_pytorch(model).save_pretrained(tmp_path, max_shard_size="50KB")
        assert len([*tmp_path.glob("model-*.safetensors")]) > 1
        assert_same_parameters(numpy_gpt2.load(tmp_path), model)

    @pytest.mark.parametrize("saved_as", ["float16", "bfloat16"])
    def test_half_precision_is_read_as_float32(self, tmp_path: Path, model: GPT2, saved_as: str) -> None:
        torch = pytest.importorskip("torch")
        theirs = in_pytorch(model).to(getattr(torch, saved_as))
        theirs.save_pretrained(tmp_path)
        ours = numpy_gpt2.load(tmp_path)
        assert ours.params.wte.dtype == np.float32
        np.testing.assert_array_equal(ours.params.wte, theirs.transformer.wte.weight.detach().float().numpy())

    def test_a_model_without_a_vocabulary_takes_only_ids(self, tmp_path: Path, model: GPT2) -> None:
        in_pytorch(model).save_pretrained(tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        assert loaded.tokenizer is None
        assert loaded.logits([1, 2]).shape == (2, 4096)
        with pytest.raises(ValueError, match="has no vocabulary"):
            loaded.generate("Once")

    def test_a_classifier_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        transformers.GPT2ForSequenceClassification(hugging_face_config(HPARAMS)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="the architecture is .*GPT2ForSequenceClassification"):
            numpy_gpt2.load(tmp_path)

    def test_a_pickle_is_refused_and_the_message_says_why(self, tmp_path: Path, model: GPT2) -> None:
        theirs = in_pytorch(model)
        theirs.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        pytest.importorskip("torch").save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is a Python pickle, which can run any program"):
            numpy_gpt2.load(tmp_path)


class TestSave:
    def test_transformers_generates_the_same_text(self, tmp_path: Path, tiny: GPT2) -> None:
        """The saved model and transformers, given its folder, continue a text in the same way."""
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(tiny, tmp_path / "deep" / "folder")
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "deep" / "folder")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "folder").eval()
        ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
        with torch.no_grad():
            text = tokenizer.decode(theirs.generate(ids, max_new_tokens=20, do_sample=False)[0][ids.shape[1] :])
        again = numpy_gpt2.load(tmp_path / "deep" / "folder")
        assert again.generate("Once upon a time", 20, temperature=0) == text

    def test_an_earlier_saved_model_is_replaced(self, tmp_path: Path, tiny: GPT2, model: GPT2) -> None:
        numpy_gpt2.save(tiny, tmp_path)
        numpy_gpt2.save(model, tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        assert_same_parameters(loaded, model)
        assert loaded.tokenizer is None
        assert {file.name for file in tmp_path.iterdir()} == {".lock", "config.json", "model.safetensors"}

    def test_a_model_can_replace_itself(self, tmp_path: Path, model: GPT2) -> None:
        """Its arrays are views of the file that is replaced."""
        numpy_gpt2.save(model, tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        loaded.params.wte[0] = 7
        numpy_gpt2.save(loaded, tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), loaded)

    @pytest.mark.parametrize(
        "file",
        [
            *("hparams.json", "checkpoint", "config.json", "model.safetensors", "tokenizer.json", "vocab.bpe"),
            *("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json", "training.safetensors"),
        ],
    )
    def test_another_model_is_never_overwritten(self, tmp_path: Path, model: GPT2, file: str) -> None:
        (tmp_path / file).write_text("mine")
        with pytest.raises(
            ValueError, match=rf"holds another model or its vocabulary \({file}\): save to a folder of its own"
        ):
            numpy_gpt2.save(model, tmp_path)
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(file, "mine")]

    def test_a_saved_model_that_transformers_saved_again_is_not_overwritten(self, tmp_path: Path, model: GPT2) -> None:
        pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(model, tmp_path)
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="holds another model"):
            numpy_gpt2.save(model, tmp_path)

    def test_on_a_full_disk_the_old_model_stays(
        self, tmp_path: Path, tiny: GPT2, model: GPT2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numpy_gpt2.save(tiny, tmp_path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        fill_disk(monkeypatch)
        with pytest.raises(OSError, match="No space left"):
            numpy_gpt2.save(model, tmp_path)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    def test_a_folder_that_cannot_be_created(self, tmp_path: Path, model: GPT2) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            numpy_gpt2.save(model, tmp_path / "file")
