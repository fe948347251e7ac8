"""Models' folders: by TensorFlow's own Saver and by transformers, and all that can be wrong with them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import checkpoints
from numpy_gpt2.download import model_folder
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, Params, named_arrays
from numpy_gpt2.safetensors_format import open_file
from numpy_gpt2.tensorflow_format import CheckpointReader

TINY = model_folder("tiny")
# OpenAI's layout needs a vocabulary too: that of tiny, with 4096 tokens
HPARAMS = HParams(n_vocab=4096, n_ctx=7, n_embd=12, n_head=3, n_layer=2)
DATA_FILE = "model.ckpt.data-00000-of-00001"


def write_tensorflow_checkpoint(folder: Path, variables: dict[str, Array], name: str = "model.ckpt") -> None:
    """Saves variables as OpenAI did, with TensorFlow 1's Saver."""
    tf = pytest.importorskip("tensorflow")
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for variable, array in variables.items():
            v1.get_variable(variable, initializer=tf.constant(array), use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / name))


def openai_variables(model: GPT2) -> dict[str, Array]:
    """A model's arrays under the names and in the shapes of OpenAI's checkpoints."""
    return {
        f"model/{name}": array[None] if name.endswith("/w") else array for name, array in named_arrays(model.params)
    }


def state_dict(model: GPT2, prefix: str = "transformer.") -> dict[str, Array]:
    """A model's arrays under the names of Hugging Face's."""
    return {prefix + checkpoints.hugging_face_name(name): array for name, array in named_arrays(model.params)}


def write_safetensors(file: Path, model: GPT2) -> None:
    pytest.importorskip("safetensors.numpy").save_file(state_dict(model), file)


def write_vocabulary_and_hparams(folder: Path, hparams: HParams) -> None:
    for file in ("encoder.json", "vocab.bpe"):
        shutil.copy(TINY / file, folder / file)
    (folder / "hparams.json").write_text(json.dumps(hparams._asdict()))


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_model(HPARAMS, "float32")


@pytest.fixture(scope="module")
def pristine(model: GPT2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in OpenAI's layout."""
    folder = tmp_path_factory.mktemp("pristine")
    write_vocabulary_and_hparams(folder, HPARAMS)
    write_tensorflow_checkpoint(folder, openai_variables(model))
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(pristine, tmp_path / "model")


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def assert_same_parameters(ours: GPT2, theirs: GPT2) -> None:
    ours_named, theirs_named = dict(named_arrays(ours.params)), dict(named_arrays(theirs.params))
    assert ours_named.keys() == theirs_named.keys()
    for name, array in ours_named.items():
        np.testing.assert_array_equal(array, theirs_named[name], err_msg=name)


class TestConversion:
    def test_what_went_into_the_checkpoint_comes_out(self, folder: Path, model: GPT2) -> None:
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

    def test_without_tensorflow_the_message_says_what_to_install(self, folder: Path, no_tensorflow: None) -> None:
        with pytest.raises(ImportError, match=r'needs TensorFlow: pip install "numpy_gpt2\[weights\]"'):
            numpy_gpt2.load(folder)

    def test_transformers_opens_what_was_written(self, folder: Path, model: GPT2) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.load(folder)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        ids = random_ids(HPARAMS, 2, 7)
        with torch.no_grad():
            logits = theirs(torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(model.logits(ids), logits, rtol=0, atol=1e-5 * np.abs(logits).max())

    def test_safetensors_reads_what_was_written(self, folder: Path, model: GPT2) -> None:
        from safetensors import safe_open

        numpy_gpt2.load(folder)
        index = (folder / "model.ckpt.index").read_bytes()
        with safe_open(folder / "model.safetensors", framework="np") as file:
            assert file.metadata()["format"] == "pt"  # older versions of transformers insist on it
            assert file.metadata()["numpy_gpt2.index_size"] == str(len(index))
            assert file.metadata()["numpy_gpt2.index_sha256"] == hashlib.sha256(index).hexdigest()
            assert len(list(file.keys())) == 4 + 12 * HPARAMS.n_layer
            weight = file.get_tensor("transformer.h.1.mlp.c_fc.weight")
        np.testing.assert_array_equal(weight, model.params.h[1].mlp.c_fc.w)

    def test_the_files_are_as_readable_as_others(self, folder: Path) -> None:
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

    def test_a_safetensors_file_of_other_origin_is_used_and_never_overwritten(self, folder: Path) -> None:
        other = random_model(HPARAMS, "float32", seed=1)
        write_safetensors(folder / "model.safetensors", other)
        before = (folder / "model.safetensors").read_bytes()
        assert_same_parameters(numpy_gpt2.load(folder), other)
        assert (folder / "model.safetensors").read_bytes() == before

    def test_a_config_of_other_origin_is_never_overwritten(self, folder: Path) -> None:
        hugging_face_config(HPARAMS).save_pretrained(folder)
        before = (folder / "config.json").read_bytes()
        numpy_gpt2.load(folder)
        write_tensorflow_checkpoint(folder, openai_variables(random_model(HPARAMS, "float32", seed=1)))
        numpy_gpt2.load(folder)
        assert (folder / "config.json").read_bytes() == before

    def test_a_config_that_was_written_here_follows_the_checkpoint(self, folder: Path) -> None:
        numpy_gpt2.load(folder)
        longer = HPARAMS._replace(n_ctx=9)
        (folder / "hparams.json").write_text(json.dumps(longer._asdict()))
        write_tensorflow_checkpoint(folder, openai_variables(random_model(longer, "float32")))
        numpy_gpt2.load(folder)
        assert json.loads((folder / "config.json").read_text())["n_positions"] == 9

    def test_two_conversions_at_once(self, folder: Path, model: GPT2) -> None:
        code = f"import numpy_gpt2; numpy_gpt2.load({str(folder)!r})"
        both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        assert_same_parameters(numpy_gpt2.load(folder), model)
        assert not [*folder.glob("*.part")]

    def test_the_second_of_two_waits_and_then_uses_what_the_first_has_made(
        self, folder: Path, model: GPT2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded = []
        second = threading.Thread(target=lambda: loaded.append(numpy_gpt2.load(folder)))
        opened = []
        original = checkpoints.open_checkpoint

        def open_checkpoint(*args: Any) -> Any:
            opened.append(args)
            second.start()
            waiting.wait()
            return original(*args)

        waiting = threading.Event()
        monkeypatch.setattr(checkpoints, "open_checkpoint", open_checkpoint)
        monkeypatch.setattr("numpy_gpt2.files.log.warning", lambda *args: waiting.set())
        numpy_gpt2.load(folder)
        second.join()
        assert_same_parameters(loaded[0], model)
        assert len(opened) == 1

    def test_only_one_array_at_a_time_is_in_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of those that the reader has given, none is alive when it is asked for the next but one."""
        given: list[Any] = []
        original = CheckpointReader.read

        def read(*args: Any) -> Array:
            assert [reference for reference in given[:-1] if reference() is not None] == []
            array = np.array(original(*args))
            given.append(weakref.ref(array))
            return array

        monkeypatch.setattr(CheckpointReader, "read", read)
        numpy_gpt2.load(folder)
        assert len(given) == 4 + 12 * HPARAMS.n_layer

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
    def test_where_nothing_can_be_written_the_model_runs_from_memory_and_says_so(
        self, folder: Path, model: GPT2, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        original = Path.open

        def refuse(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode.startswith("r") or self == Path(os.devnull):
                return original(self, mode, *args, **kwargs)
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        before = sorted(folder.iterdir())
        monkeypatch.setattr(Path, "open", refuse)
        loaded = numpy_gpt2.load(folder, dtype=dtype)
        assert loaded.params.wte.dtype == dtype
        assert_same_parameters(loaded, model)
        assert (
            "model.safetensors cannot be written (Read-only file system); the model runs from memory, and Tens"
            in caplog.text
        )
        assert sorted(folder.iterdir()) == before

    def test_a_disk_that_fills_up_leaves_nothing_behind(
        self, folder: Path, model: GPT2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        before = sorted(folder.iterdir())
        monkeypatch.setattr("os.fsync", full)
        assert_same_parameters(numpy_gpt2.load(folder), model)
        assert sorted(folder.iterdir()) == [folder / ".lock", *before]

    @pytest.mark.parametrize(
        "path",
        ["model.ckpt", "/somewhere/else/124M/model.ckpt", "../run/model.ckpt", "C:\\\\\\\\models\\\\\\\\model.ckpt"],
    )
    def test_of_the_path_in_checkpoint_the_last_part_counts(self, folder: Path, model: GPT2, path: str) -> None:
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n')
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_the_file_checkpoint_says_which_is_current(self, folder: Path, model: GPT2) -> None:
        other = random_model(HPARAMS, "float32", seed=1)
        write_tensorflow_checkpoint(folder, openai_variables(other), name="model-500")
        assert_same_parameters(numpy_gpt2.load(folder), other)
        (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_without_the_file_checkpoint_it_is_model_ckpt(self, folder: Path, model: GPT2) -> None:
        (folder / "checkpoint").unlink()
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_variables_of_the_optimizer_are_passed_over(self, folder: Path, model: GPT2) -> None:
        moments = {
            f"{name}/Adam": np.zeros_like(array) for name, array in openai_variables(model).items() if "h0" in name
        }
        write_tensorflow_checkpoint(
            folder, {**openai_variables(model), **moments, "global_step": np.array(5, np.int64)}
        )
        assert_same_parameters(numpy_gpt2.load(folder), model)

    def test_tensorflow_says_nothing_to_the_user(self, folder: Path) -> None:
        code = f"import numpy_gpt2; numpy_gpt2.load({str(folder)!r}); print('done')"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("done\n", "")


CONVERT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from numpy_gpt2 import checkpoints
from numpy_gpt2.params import HParams
from numpy_gpt2.tokenizer import Tokenizer

folder, kill_at, hparams = Path(sys.argv[1]), int(sys.argv[2]), HParams(*map(int, sys.argv[3:]))

class Reader:  # in place of TensorFlow's, which takes seconds to start
    def __init__(self, checkpoint):
        self.variables = dict(np.load(folder / "variables.npz"))
        self.shapes = {name: array.shape for name, array in self.variables.items()}
    def read(self, name, shape):
        return self.variables["model/" + name].reshape(shape)

checkpoints.CheckpointReader = Reader
tokenizer = Tokenizer.load(folder)
steps = 0

def count(frame, event, arg):  # every line, call and return of these files
    global steps
    if "numpy_gpt2" not in frame.f_code.co_filename:
        return None
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return count

sys.settrace(count)
checkpoints.load_params(folder, hparams, tokenizer)
sys.settrace(None)
print(steps)
"""


def run_conversion(folder: Path, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
    """Converts in a process of its own, which is killed at a given step."""
    args = [sys.executable, "-c", CONVERT, str(folder), str(kill_at), *map(str, HPARAMS)]
    return subprocess.run(args, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
@pytest.mark.parametrize("n_kills", [10, pytest.param(100, marks=pytest.mark.slow(reason="a hundred processes"))])
def test_a_conversion_that_is_killed_leaves_nothing_that_counts_as_whole(
    folder: Path, model: GPT2, tmp_path: Path, n_kills: int
) -> None:
    np.savez(folder / "variables.npz", allow_pickle=False, **openai_variables(model))
    shutil.copytree(folder, tmp_path / "undisturbed")
    n_steps = int(run_conversion(tmp_path / "undisturbed").stdout)
    written = {file.name: file.read_bytes() for file in (tmp_path / "undisturbed").iterdir()}
    places = random.Random(n_kills).sample(range(1, n_steps), n_kills)
    for kill_at in places:
        result = run_conversion(folder, kill_at)
        assert result.returncode == -9, result.stderr
        left = folder / "model.safetensors"
        assert not left.exists() or left.read_bytes() == written[left.name]
        if left.exists():
            left.unlink()
    assert run_conversion(folder).returncode == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == written


@pytest.mark.parametrize("file", ["hparams.json", "encoder.json", "vocab.bpe", "model.ckpt.index", DATA_FILE])
def test_a_folder_holds_a_model_when_all_that_it_needs_is_there(folder: Path, file: str) -> None:
    assert checkpoints.holds_model(folder)
    (folder / file).unlink()
    assert not checkpoints.holds_model(folder)


def test_a_folder_whose_checkpoint_has_no_name_holds_none(folder: Path) -> None:
    (folder / "checkpoint").write_text("nonsense")
    assert not checkpoints.holds_model(folder)


class TestBadCheckpoints:
    """Each is refused by a sentence, and nothing is written."""

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
            ValueError, match=rf"{name} has the shape \[1, 48, 12\], but the hyper-parameters ask for \[1, 12, 48\]"
        ):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"n_embd": 24}, r"model/wte has the shape \[4096, 12\]"),
            ({"n_ctx": 8}, r"model/wpe has the shape \[7, 12\]"),
            ({"n_layer": 3}, "model.ckpt holds 2 blocks, but the hyper-parameters say 3"),
            ({"n_layer": 1}, "model.ckpt holds 2 blocks, but the hyper-parameters say 1"),
            ({"n_layer": 10**15}, "model.ckpt holds 2 blocks, but the hyper-parameters say 1000000000000000"),
        ],
        ids=str,
    )
    def test_hparams_are_another_models(self, folder: Path, change: dict[str, int], named: str) -> None:
        (folder / "hparams.json").write_text(json.dumps({**HPARAMS._asdict(), **change}))
        with pytest.raises(ValueError, match=named):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_variable_holds_no_numbers(self, folder: Path, model: GPT2, value: float) -> None:
        variables = openai_variables(model)
        variables["model/wpe"] = variables["model/wpe"].copy()
        variables["model/wpe"][3, 4] = value
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(ValueError, match="model/wpe holds NaN or infinity"):
            numpy_gpt2.load(folder)

    def test_a_variable_is_of_another_type(self, folder: Path, model: GPT2) -> None:
        variables = openai_variables(model)
        variables["model/wpe"] = np.ones((7, 12), np.int32)
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(ValueError, match="model/wpe has the type int32, not a float type"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -4])
    @pytest.mark.parametrize("file", ["model.ckpt.index", DATA_FILE])
    def test_a_file_is_cut_short(self, folder: Path, file: str, keep: float) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
        with pytest.raises(ValueError, match=r"model\.ckpt.*(cut short|missing)"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("place", [0, 10, 0.3, 0.5, 0.9, -1])
    @pytest.mark.parametrize("file", ["model.ckpt.index", DATA_FILE])
    def test_a_byte_is_wrong(self, folder: Path, file: str, place: float) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(place * len(content)) if 0 < place < 1 else int(place)] ^= 0x55
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.ckpt.*damaged"):
            numpy_gpt2.load(folder)

    def test_the_data_file_is_missing(self, folder: Path) -> None:
        (folder / DATA_FILE).unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            numpy_gpt2.load(folder)

    def test_the_index_is_missing(self, folder: Path) -> None:
        (folder / "model.ckpt.index").unlink()
        with pytest.raises(FileNotFoundError, match="neither model.safetensors nor model.ckpt.index"):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b'model_checkpoint_path: ""', b"\xff\xfe\x00"])
    def test_the_file_checkpoint_names_none(self, folder: Path, content: bytes) -> None:
        (folder / "checkpoint").write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint (does not name a checkpoint|is not text)"):
            numpy_gpt2.load(folder)

    def test_there_are_no_weights(self, folder: Path) -> None:
        for file in (*folder.glob("model.ckpt*"), folder / "checkpoint"):
            file.unlink()
        with pytest.raises(
            FileNotFoundError, match="holds no parameters: neither model.safetensors nor model.ckpt.index"
        ):
            numpy_gpt2.load(folder)


def read(file: Path, hparams: HParams = HPARAMS) -> Params:
    return checkpoints.read_tensors(file, open_file(file)[1], hparams)


class TestTensors:
    """The arrays in a `model.safetensors`."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "model.safetensors"

    @pytest.fixture
    def save(self, file: Path) -> Callable[[dict[str, Array]], None]:
        """Writes them with the format's own library."""
        save_file = pytest.importorskip("safetensors.numpy").save_file
        return lambda arrays: save_file(arrays, file)

    @pytest.mark.parametrize("prefix", ["", "transformer."])
    def test_with_and_without_prefix_and_masks(
        self, file: Path, model: GPT2, prefix: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        """Older files have the causal masks among the arrays."""
        masks: dict[str, Array] = {
            f"{prefix}h.0.attn.bias": np.tril(np.ones((1, 1, 7, 7), np.uint8)),
            f"{prefix}h.1.attn.masked_bias": np.array(-1e4, np.float32),
        }
        save({**state_dict(model, prefix), **masks})
        assert_same_parameters(model, GPT2(HPARAMS, read(file), None, ""))

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"n_layer": 3}, "holds 2 blocks, but the hyper-parameters say 3"),
            ({"n_layer": 1}, "holds 2 blocks, but the hyper-parameters say 1"),
            ({"n_layer": 10**15}, "holds 2 blocks, but the hyper-parameters say 1000000000000000"),
            ({"n_ctx": 9}, r"wpe\.weight has the shape \[7, 12\], but the hyper-parameters ask for \[9, 12\]"),
        ],
        ids=str,
    )
    def test_arrays_that_do_not_fit_the_hyper_parameters(
        self, file: Path, model: GPT2, change: dict[str, int], named: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save(state_dict(model))
        with pytest.raises(ValueError, match=rf"model\.safetensors.*{named}"):
            read(file, HPARAMS._replace(**change))

    def test_an_array_is_missing(self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]) -> None:
        arrays = state_dict(model)
        del arrays["transformer.h.1.mlp.c_fc.bias"]
        save(arrays)
        with pytest.raises(ValueError, match=r"the array transformer\.h\.1\.mlp\.c_fc\.bias is missing"):
            read(file)

    def test_whole_numbers_are_no_parameters(
        self, file: Path, model: GPT2, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save({**state_dict(model), "transformer.wpe.weight": np.ones((7, 12), np.int32)})
        with pytest.raises(ValueError, match=r"the array transformer\.wpe\.weight: it has the type I32, not a float"):
            read(file)

    def test_an_output_head_of_its_own_is_refused(
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
    def test_arrays_of_another_kind_of_model_are_refused_by_name(
        self, file: Path, model: GPT2, name: str, save: Callable[[dict[str, Array]], None]
    ) -> None:
        save({**state_dict(model), name: np.ones(3, np.float32)})
        with pytest.raises(ValueError, match=f"the array {name} is no part of GPT-2"):
            read(file)


class TestHuggingFace:
    """Folders by transformers' own `save_pretrained`, and ours opened by its `from_pretrained`."""

    @pytest.mark.parametrize("hparams", [*SHAPES, HPARAMS], ids=str)
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
    def test_there_and_back(self, tmp_path: Path, hparams: HParams, dtype: str, tolerance: float) -> None:
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
    def test_the_other_models_of_the_family(self, tmp_path: Path, model: GPT2, kind: str) -> None:
        pytest.importorskip("torch")
        theirs = getattr(pytest.importorskip("transformers"), kind)(hugging_face_config(HPARAMS))
        theirs.base_model.load_state_dict(in_pytorch(model).transformer.state_dict())
        theirs.save_pretrained(tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), model)

    def test_several_files(self, tmp_path: Path, model: GPT2) -> None:
        in_pytorch(model).save_pretrained(tmp_path, max_shard_size="50KB")
        assert len([*tmp_path.glob("model-*.safetensors")]) > 1
        assert_same_parameters(numpy_gpt2.load(tmp_path), model)

    @pytest.mark.parametrize("stored", ["float16", "bfloat16"])
    def test_half_precision_is_read_as_float32(self, tmp_path: Path, model: GPT2, stored: str) -> None:
        torch = pytest.importorskip("torch")
        theirs = in_pytorch(model).to(getattr(torch, stored))
        theirs.save_pretrained(tmp_path)
        ours = numpy_gpt2.load(tmp_path)
        assert ours.params.wte.dtype == np.float32
        np.testing.assert_array_equal(ours.params.wte, theirs.transformer.wte.weight.detach().float().numpy())

    def test_a_folder_without_vocabulary_knows_ids_only(self, tmp_path: Path, model: GPT2) -> None:
        in_pytorch(model).save_pretrained(tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        assert loaded.tokenizer is None
        assert loaded.logits([1, 2]).shape == (2, 4096)
        with pytest.raises(ValueError, match="came without a vocabulary"):
            loaded.generate("Once")

    def test_a_classifier_is_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        transformers.GPT2ForSequenceClassification(hugging_face_config(HPARAMS)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="the architecture is .*GPT2ForSequenceClassification"):
            numpy_gpt2.load(tmp_path)

    def test_a_pickle_is_refused_with_the_reason(self, tmp_path: Path, model: GPT2) -> None:
        theirs = in_pytorch(model)
        theirs.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        pytest.importorskip("torch").save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is a Python pickle, which can run any program"):
            numpy_gpt2.load(tmp_path)


class TestSave:
    def test_text_and_all(self, tmp_path: Path, tiny: GPT2) -> None:
        """A saved model continues a text as `transformers` does with the folder."""
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

    def test_a_model_that_was_saved_before_is_replaced(self, tmp_path: Path, tiny: GPT2, model: GPT2) -> None:
        numpy_gpt2.save(tiny, tmp_path)
        numpy_gpt2.save(model, tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        assert_same_parameters(loaded, model)
        assert loaded.tokenizer is None
        assert {file.name for file in tmp_path.iterdir()} == {".lock", "config.json", "model.safetensors"}

    def test_also_by_itself(self, tmp_path: Path, model: GPT2) -> None:
        """Whose arrays are views of the very file that is replaced."""
        numpy_gpt2.save(model, tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        loaded.params.wte[0] = 7
        numpy_gpt2.save(loaded, tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), loaded)

    @pytest.mark.parametrize(
        "file", ["hparams.json", "checkpoint", "config.json", "model.safetensors", "tokenizer.json", "vocab.bpe"]
    )
    def test_another_model_is_never_overwritten(self, tmp_path: Path, model: GPT2, file: str) -> None:
        (tmp_path / file).write_text("mine")
        with pytest.raises(
            ValueError, match=rf"holds another model or its vocabulary \({file}\): save to a folder of its own"
        ):
            numpy_gpt2.save(model, tmp_path)
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(file, "mine")]

    def test_nor_what_transformers_made_of_ours(self, tmp_path: Path, model: GPT2) -> None:
        pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        numpy_gpt2.save(model, tmp_path)
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="holds another model"):
            numpy_gpt2.save(model, tmp_path)

    def test_a_disk_that_fills_up_keeps_what_was_there(
        self, tmp_path: Path, tiny: GPT2, model: GPT2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        numpy_gpt2.save(tiny, tmp_path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            numpy_gpt2.save(model, tmp_path)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("step", range(1, 8))
    def test_interrupted_anywhere_it_is_the_old_model_or_the_new_or_none(
        self, tmp_path: Path, tiny: GPT2, model: GPT2, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Never the parameters of one with the description of the other."""
        numpy_gpt2.save(tiny, tmp_path)
        calls = []

        def interrupt(original: Callable[..., Any]) -> Callable[..., Any]:
            def either(*args: Any, **kwargs: Any) -> Any:
                calls.append(args)
                if len(calls) == step:
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            return either

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", interrupt(Path.replace))
            patch.setattr("os.fsync", interrupt(os.fsync))
            with contextlib.suppress(KeyboardInterrupt):
                numpy_gpt2.save(model, tmp_path)
        if (tmp_path / "model.safetensors").exists():
            loaded = numpy_gpt2.load(tmp_path)
            expected = tiny if loaded.hparams == tiny.hparams else model
            assert_same_parameters(loaded, expected)
            assert (loaded.tokenizer is None) == (expected.tokenizer is None)
        numpy_gpt2.save(model, tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), model)

    def test_a_place_that_cannot_be_written(self, tmp_path: Path, model: GPT2) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            numpy_gpt2.save(model, tmp_path / "file")
