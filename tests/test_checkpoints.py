"""Checkpoints by TensorFlow's own Saver, safetensors files by their library, and all that can be wrong with them."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2 import checkpoints
from numpy_gpt2.download import model_folder
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, named_arrays

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
        checkpoints.write_safetensors(folder / "model.safetensors", other.params, {})
        before = (folder / "model.safetensors").read_bytes()
        assert_same_parameters(numpy_gpt2.load(folder), other)
        assert (folder / "model.safetensors").read_bytes() == before

    def test_a_config_of_other_origin_is_never_overwritten(self, folder: Path) -> None:
        (folder / "config.json").write_text('{"mine": true}')
        numpy_gpt2.load(folder)
        write_tensorflow_checkpoint(folder, openai_variables(random_model(HPARAMS, "float32", seed=1)))
        numpy_gpt2.load(folder)
        assert (folder / "config.json").read_text() == '{"mine": true}'

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
        assert not [file for file in folder.iterdir() if file.suffix == ".part"]

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_where_nothing_can_be_written_the_model_runs_from_memory_and_says_so(
        self, folder: Path, model: GPT2, dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        before = sorted(folder.iterdir())
        monkeypatch.setattr(Path, "touch", refuse)
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
        assert sorted(folder.iterdir()) == before

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


# the function that kills the process in place of its nth call; config.json is written before the arrays
KILLS = [
    ("Path.touch", 1),
    ("os.fsync", 1),
    ("Path.replace", 1),
    ("Path.touch", 2),
    ("safetensors.numpy.save_file", 1),
    ("os.fsync", 2),
    ("Path.replace", 2),
]


@pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
@pytest.mark.parametrize(("at", "call"), KILLS)
def test_a_conversion_that_is_killed_leaves_nothing_that_counts_as_whole(
    folder: Path, model: GPT2, at: str, call: int
) -> None:
    variables = openai_variables(model)
    code = f"""
import os, signal, sys, safetensors.numpy
from pathlib import Path
import numpy as np
from numpy_gpt2 import checkpoints
from numpy_gpt2.params import build, HParams

variables = dict(np.load({str(folder / "variables.npz")!r}))
checkpoints.read_tensorflow = lambda checkpoint, hparams: build(
    hparams, lambda name, shape: variables["model/" + name].reshape(shape))

original, calls = {at}, []
def kill(*args, **kwargs):
    calls.append(args)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
{at} = kill
checkpoints.load_params(Path({str(folder)!r}), HParams(*{tuple(HPARAMS)}))
"""
    np.savez(folder / "variables.npz", allow_pickle=False, **variables)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == -9, result.stderr
    assert not (folder / "model.safetensors").exists()
    assert_same_parameters(numpy_gpt2.load(folder), model)


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
        with pytest.raises(ValueError, match=f"the variable {missing} is missing"):
            numpy_gpt2.load(folder)

    def test_a_variable_has_another_shape(self, folder: Path, model: GPT2) -> None:
        variables = openai_variables(model)
        name = "model/h0/mlp/c_fc/w"
        variables[name] = np.swapaxes(variables[name], 1, 2)
        write_tensorflow_checkpoint(folder, variables)
        with pytest.raises(
            ValueError, match=rf"{name} has the shape \[1, 48, 12\], but hparams.json asks for \[1, 12, 48\]"
        ):
            numpy_gpt2.load(folder)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"n_embd": 24}, r"model/wte has the shape \[4096, 12\]"),
            ({"n_ctx": 8}, r"model/wpe has the shape \[7, 12\]"),
            ({"n_layer": 3}, "model/h2/ln_1/g is missing"),
            ({"n_layer": 1}, "model/h1/.* is of a block beyond the 1"),
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
        with pytest.raises(ValueError, match="model/wpe is of the type int32, not a float type"):
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


class TestHParams:
    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            ("", "is not JSON"),
            ('{"n_vocab": 50257,', "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[1, 2]", "must be a JSON object"),
            ('{"n_vocab": ' + "9" * 5000 + "}", "is not JSON"),
            ("{}", "does not say n_vocab, n_ctx, n_embd, n_head, n_layer"),
            ({"n_head": 5}, "n_embd must be a multiple of n_head"),
            ({"n_layer": -1}, "n_layer must be a positive whole number, not -1"),
            ({"n_layer": 1e9}, "n_layer must be a positive whole number, not 1000000000.0"),
            ({"n_ctx": "many"}, "n_ctx must be a positive whole number, not 'many'"),
            ({"n_embd": None}, "n_embd must be a positive whole number, not None"),
            ({"n_vocab": float("nan")}, "n_vocab must be a positive whole number, not nan"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_nonsense_is_refused(self, tmp_path: Path, content: str | dict[str, Any], complaint: str) -> None:
        file = tmp_path / "hparams.json"
        file.write_text(content if isinstance(content, str) else json.dumps({**HPARAMS._asdict(), **content}))
        with pytest.raises(ValueError, match=rf"hparams\.json.*{complaint}"):
            checkpoints.read_hparams(tmp_path)

    def test_huge_numbers_are_refused_without_ado(self, tmp_path: Path) -> None:
        shutil.copytree(TINY, tmp_path / "model")
        (tmp_path / "model" / "hparams.json").write_text(json.dumps({**HPARAMS._asdict(), "n_layer": 10**15}))
        with pytest.raises(ValueError, match="has the shape"):
            numpy_gpt2.load(tmp_path / "model")

    def test_other_entries_make_no_difference(self, tmp_path: Path) -> None:
        (tmp_path / "hparams.json").write_text(json.dumps({**HPARAMS._asdict(), "comment": "mine"}))
        assert checkpoints.read_hparams(tmp_path) == HPARAMS

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"hparams\.json is missing"):
            checkpoints.read_hparams(tmp_path)


class TestSafetensors:
    @pytest.fixture
    def file(self, tmp_path: Path, model: GPT2) -> Path:
        file = tmp_path / "model.safetensors"
        checkpoints.write_safetensors(file, model.params, {})
        return file

    def test_float32_is_not_copied(self, file: Path, model: GPT2) -> None:
        params = checkpoints.read_safetensors(file, HPARAMS)
        bases = set()
        for (name, array), (_, original) in zip(named_arrays(params), named_arrays(model.params), strict=True):
            np.testing.assert_array_equal(array, original, err_msg=name)
            assert array.flags.aligned
            base: Any = array
            while isinstance(base, np.ndarray):
                assert not base.flags.owndata
                base = base.base
            bases.add(id(base.obj if isinstance(base, memoryview) else base))
        assert len(bases) == 1

    def test_arrays_may_be_views_of_any_kind_when_written(self, tmp_path: Path, model: GPT2) -> None:
        """The library writes memory as it lies, and so would turn a transposed array into another one."""
        transposed = np.asfortranarray(model.params.wte)
        checkpoints.write_safetensors(tmp_path / "model", model.params._replace(wte=transposed), {})
        np.testing.assert_array_equal(checkpoints.read_safetensors(tmp_path / "model", HPARAMS).wte, transposed)

    def test_changing_an_array_does_not_change_the_file(self, file: Path) -> None:
        before = file.read_bytes()
        params = checkpoints.read_safetensors(file, HPARAMS)
        params.wte[0] = 7
        params.h[1].mlp.c_fc.w[...] *= 0
        assert (params.wte[0] == 7).all()
        assert file.read_bytes() == before
        assert not (checkpoints.read_safetensors(file, HPARAMS).wte[0] == 7).any()

    def test_the_models_of_transformers_load(self, tmp_path: Path) -> None:
        """With and without the prefix, and with masks among the arrays, as older files have them."""
        safetensors_torch = pytest.importorskip("safetensors.torch")
        torch = pytest.importorskip("torch")
        gpt2 = random_model(SHAPES[0], "float32")
        state = in_pytorch(gpt2).transformer.state_dict()
        for prefix in ("", "transformer."):
            arrays = {prefix + name: tensor for name, tensor in state.items()}
            arrays[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 7, 7, dtype=torch.uint8).tril()
            safetensors_torch.save_file(arrays, tmp_path / "model.safetensors")
            params = checkpoints.read_safetensors(tmp_path / "model.safetensors", SHAPES[0])
            for (name, ours), (_, original) in zip(named_arrays(params), named_arrays(gpt2.params), strict=True):
                np.testing.assert_array_equal(ours, original, err_msg=name)

    @pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_other_float_types_are_converted(self, tmp_path: Path, model: GPT2, stored: str, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        safetensors_torch = pytest.importorskip("safetensors.torch")
        state = {
            f"transformer.{checkpoints.hugging_face_name(name)}": torch.tensor(array).to(getattr(torch, stored))
            for name, array in named_arrays(model.params)
        }
        safetensors_torch.save_file(state, tmp_path / "model.safetensors")
        params = checkpoints.read_safetensors(tmp_path / "model.safetensors", HPARAMS, dtype)
        for (name, ours), theirs in zip(named_arrays(params), state.values(), strict=True):
            assert ours.dtype == dtype
            np.testing.assert_array_equal(ours, theirs.to(getattr(torch, dtype)).numpy(), err_msg=name)
            assert ours.flags.writeable

    def test_an_array_at_an_odd_place_is_aligned(self, tmp_path: Path, file: Path, model: GPT2) -> None:
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        odd = (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
        (tmp_path / "odd").write_bytes(odd)
        params = checkpoints.read_safetensors(tmp_path / "odd", HPARAMS)
        assert params.wte.flags.aligned
        np.testing.assert_array_equal(params.wte, model.params.wte)

    @pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
    def test_a_file_that_is_cut_short_is_refused(self, file: Path, keep: float) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content)) if 0 < keep < 1 else int(keep)])
        with pytest.raises(ValueError, match=r"model\.safetensors is (empty|not a safetensors file)"):
            checkpoints.read_safetensors(file, HPARAMS)

    @pytest.mark.parametrize(
        "header",
        [
            b"nonsense",
            b"[]",
            b"[" * 100_000,
            b'{"__metadata__": []}',
            b'{"a": 1}',
            b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
            b'{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
            b'{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
            b'{"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}',
        ],
        ids=lambda header: header[:60].decode(),
    )
    def test_a_header_of_nonsense_is_refused(self, tmp_path: Path, header: bytes) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
        with pytest.raises(ValueError, match=r"is not a safetensors file, or is damaged|wte\.weight is missing"):
            checkpoints.read_safetensors(file, HPARAMS)
        file.write_bytes(b"\xff" * 100)
        with pytest.raises(ValueError, match="is not a safetensors file, or is damaged"):
            checkpoints.read_safetensors(file, HPARAMS)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"n_layer": 3}, r"h\.2\.ln_1\.weight is missing"),
            ({"n_layer": 1}, r"h\.1\..* is of a block beyond the 1"),
            ({"n_ctx": 9}, r"wpe\.weight has the shape \[7, 12\], but the hyper-parameters ask for \[9, 12\]"),
        ],
        ids=str,
    )
    def test_arrays_that_do_not_fit_the_hyper_parameters(self, file: Path, change: dict[str, int], named: str) -> None:
        with pytest.raises(ValueError, match=named):
            checkpoints.read_safetensors(file, HPARAMS._replace(**change))

    def test_whole_numbers_are_no_parameters(self, tmp_path: Path, model: GPT2) -> None:
        from safetensors.numpy import save_file

        state = {f"transformer.{checkpoints.hugging_face_name(n)}": a for n, a in named_arrays(model.params)}
        save_file({**state, "transformer.wpe.weight": np.ones((7, 12), np.int32)}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"wpe\.weight has the type I32, not a float type"):
            checkpoints.read_safetensors(tmp_path / "model.safetensors", HPARAMS)

    @pytest.mark.parametrize("same", [True, False])
    def test_an_output_head_of_its_own_is_refused(self, tmp_path: Path, model: GPT2, same: bool) -> None:
        from safetensors.numpy import save_file

        state = {f"transformer.{checkpoints.hugging_face_name(n)}": a for n, a in named_arrays(model.params)}
        file = tmp_path / "model.safetensors"
        save_file({**state, "lm_head.weight": model.params.wte + (0 if same else 1)}, file)
        if same:
            np.testing.assert_array_equal(checkpoints.read_safetensors(file, HPARAMS).wte, model.params.wte)
        else:
            with pytest.raises(ValueError, match=r"lm_head\.weight differs from wte"):
                checkpoints.read_safetensors(file, HPARAMS)
