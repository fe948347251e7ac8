"""A model saved over another: whatever happens meanwhile, the folder holds the one or the other, whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_model
from model_files import HPARAMS, assert_same_parameters
from on_disk import steps_patched

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine import files
from numpy_gpt2.machine.files import SAVED, SAVING, is_settled
from numpy_gpt2.params import Linear
from numpy_gpt2.text.special_ids import SpecialIds
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, END_OF_TEXT, Tokenizer
from numpy_gpt2.weights import config
from numpy_gpt2.weights import folder as folders

FILES = ("config.json", "model.safetensors")
VOCABULARY = ("merges.txt", "tokenizer_config.json", "vocab.json")


@pytest.fixture(scope="module")
def models(tiny: GPT2) -> list[GPT2]:
    """Three sizes: with a vocabulary; with a second head and several ends of a text; with an added token."""
    plain = random_model(HPARAMS._replace(n_embd=96), "float32", seed=1)
    rng = np.random.default_rng(0)
    head = Linear(w=rng.normal(size=(96, 1)).astype(np.float32), b=np.ones(1, np.float32))
    tokens = [*BYTE_TO_CHARACTER.values(), END_OF_TEXT, "[PAD]"]
    padded = Tokenizer({token: id for id, token in enumerate(tokens)}, [], ["[PAD]"])
    small = random_model(HPARAMS._replace(n_vocab=258, n_head=2), "float64", seed=2)
    return [
        tiny,
        GPT2(plain.hparams, plain.params, None, "double heads", head, special_ids=SpecialIds((3, 4), 5, 6)),
        GPT2(small.hparams, small.params, padded, "padded"),
    ]


def which(folder: Path, models: Sequence[GPT2]) -> GPT2:
    """The model that the folder holds, which must be one of these in every part."""
    loaded = numpy_gpt2.load(folder, dtype="float64")
    (model,) = (model for model in models if model.hparams == loaded.hparams)
    assert_same_parameters(loaded, model)
    assert loaded.special_ids == model.special_ids
    assert (loaded.tokenizer and loaded.tokenizer.encoder) == (model.tokenizer and model.tokenizer.encoder)
    assert (loaded.multiple_choice_head is None) == (model.multiple_choice_head is None)
    if loaded.multiple_choice_head and model.multiple_choice_head:
        np.testing.assert_array_equal(loaded.multiple_choice_head.w, model.multiple_choice_head.w)
    return model


def check(folder: Path, models: Sequence[GPT2]) -> GPT2:
    """The model that the folder holds: for someone who cannot write to it, and, the same one, for others.

    Then the files themselves are in their places, and nothing else is.
    """

    def refuse(folder: Path, wait: bool = True) -> Any:
        raise PermissionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "locked", refuse)
        model = which(folder, models)
    assert which(folder, models) is model
    assert is_settled(folder)
    expected = {".lock", *FILES, *(VOCABULARY if model.tokenizer else ())}
    assert {file.name for file in folder.iterdir()} == expected
    return model


def in_another_process(act: Callable[[], object], prepare: Callable[[], object]) -> int:
    """Runs this in a copy of this process, after `prepare`; returns its wait status."""
    if not (pid := os.fork()):
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            prepare()
            act()
            sys.settrace(None)
        except (OSError, KeyboardInterrupt):
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def signal_at(step: int, number: signal.Signals) -> Callable[[], None]:
    """Makes this process send itself a signal before it runs the line number `step` of what saves a model."""
    steps = itertools.count(1)

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(("files.py", "folder.py", "safetensors.py", "config.py")):
            return None
        if event == "line" and next(steps) == step:
            os.kill(os.getpid(), number)
        return trace

    return lambda: sys.settrace(trace)


def count_steps(act: Callable[[], object]) -> int:
    """How many lines of what saves a model this runs."""
    steps = itertools.count()

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(("files.py", "folder.py", "safetensors.py", "config.py")):
            return None
        if event == "line":
            next(steps)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return next(steps)


def pairs(models: Sequence[GPT2], n: int) -> Iterator[tuple[GPT2, GPT2]]:
    """An old and a new model, n times, each pair in turn."""
    return itertools.islice(itertools.cycle(itertools.permutations(models, 2)), n)


posix = pytest.mark.skipif(sys.platform == "win32", reason="a process is copied and killed")


@posix
@pytest.mark.parametrize("n", [18, pytest.param(300, marks=pytest.mark.slow(reason="three hundred processes"))])
def test_a_killed_save_leaves_one_of_the_two_models(tmp_path: Path, models: list[GPT2], n: int) -> None:
    rng, held = random.Random(n), []
    for old, new in pairs(models, n):
        numpy_gpt2.save(old, tmp_path / "model")
        n_steps = count_steps(partial(numpy_gpt2.save, new, tmp_path / "other"))
        number = rng.choice([signal.SIGKILL, signal.SIGINT])
        # Half of the signals come late, when the files are put in their places.
        step = rng.randrange(1, n_steps + 1) if rng.random() < 0.5 else n_steps - rng.randrange(150)
        in_another_process(partial(numpy_gpt2.save, new, tmp_path / "model"), signal_at(step, number))
        held.append(check(tmp_path / "model", [old, new]) is new)
        shutil.rmtree(tmp_path / "other")
    assert 0 < sum(held) < n


@posix
@pytest.mark.parametrize("n", [6, pytest.param(100, marks=pytest.mark.slow(reason="a hundred processes"))])
def test_a_disk_that_fills_up_in_the_middle_of_a_file_leaves_the_old_model(
    tmp_path: Path, models: list[GPT2], n: int
) -> None:
    import resource

    rng = random.Random(n)
    for old, new in pairs(models, n):
        numpy_gpt2.save(old, tmp_path)
        limit = rng.randrange(4 * sum(array.size for array in new.params[:2]))  # smaller than the parameters
        fill = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
        status = in_another_process(partial(numpy_gpt2.save, new, tmp_path), fill)
        assert os.waitstatus_to_exitcode(status) == 1
        assert not (tmp_path / SAVING).exists()
        assert check(tmp_path, [old, new]) is old


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
@pytest.mark.parametrize("pair", [(1, 2), (2, 1)], ids=str)
def test_a_save_that_fails_at_any_step_leaves_one_of_the_two_models(
    tmp_path: Path, models: list[GPT2], pair: tuple[int, int], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = (models[i] for i in pair)
    held: list[GPT2] = []
    messages: set[str] = set()
    for step in itertools.count(1):
        numpy_gpt2.save(old, tmp_path)
        counted = itertools.count(1)

        def fail(counted: Iterator[int] = counted, step: int = step) -> None:
            if next(counted) == step:
                raise error

        with pytest.MonkeyPatch.context() as patch:
            steps_patched(patch, fail)
            with contextlib.suppress(OSError, KeyboardInterrupt):
                numpy_gpt2.save(new, tmp_path)
        if next(counted) <= step:  # nothing failed
            break
        caplog.clear()
        unsettled = not is_settled(tmp_path)
        held.append(check(tmp_path, [old, new]))
        assert bool(caplog.messages) == unsettled
        messages |= {*caplog.messages}
    assert held == sorted(held, key=[old, new].index)  # up to one step the old one, and then the new
    assert {old, new} == {*held}
    assert f"{tmp_path}: an interrupted save was completed; the folder holds what was saved last" in messages
    assert which(tmp_path, [old, new]) is new


@pytest.mark.parametrize(
    ("function", "outcome"),
    [
        ("sync", "nothing was saved, and what the folder held is whole"),
        ("link_or_copy", "the new files are complete; load or save again to finish"),
    ],
)
def test_a_full_disk_is_reported_with_the_folder_and_what_it_holds(
    tmp_path: Path, models: list[GPT2], monkeypatch: pytest.MonkeyPatch, function: str, outcome: str
) -> None:
    def full(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old, new = models[1:]
    numpy_gpt2.save(old, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files, function, full)
        with pytest.raises(OSError, match=f"No space left on device: {outcome}: '{tmp_path}'") as error:
            numpy_gpt2.save(new, tmp_path)
    assert error.value.errno == errno.ENOSPC
    assert check(tmp_path, [old, new]) is (old if function == "sync" else new)


def test_what_a_killed_save_left_is_discarded_with_a_message(
    tmp_path: Path, models: list[GPT2], caplog: pytest.LogCaptureFixture
) -> None:
    numpy_gpt2.save(models[1], tmp_path)
    message = f"{tmp_path}: what an interrupted save had left was discarded; the files saved before are whole"
    for act in (lambda: which(tmp_path, models[1:2]), lambda: numpy_gpt2.save(models[1], tmp_path)):
        caplog.clear()
        (tmp_path / SAVING).mkdir()
        (tmp_path / SAVING / "model.safetensors").write_text("half of a fi")
        act()
        assert caplog.messages == [message]
        assert check(tmp_path, models[1:2]) is models[1]


def test_the_first_save_to_a_folder_is_completed_as_well(tmp_path: Path, models: list[GPT2]) -> None:
    numpy_gpt2.save(models[2], tmp_path / "whole")
    (tmp_path / "model").mkdir()
    (tmp_path / "whole").rename(tmp_path / "model" / SAVED)
    (tmp_path / "model" / SAVED / ".lock").unlink()
    assert folders.holds_model(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "again")
    assert check(tmp_path / "model", models) is models[2]
    numpy_gpt2.save(models[1], tmp_path / "again")
    assert check(tmp_path / "again", models) is models[1]


@pytest.mark.parametrize("pair", [(1, 2), (2, 1)], ids=str)
def test_who_loads_during_a_save_gets_one_of_the_two_models(
    tmp_path: Path, models: list[GPT2], pair: tuple[int, int]
) -> None:
    old, new = (models[i] for i in pair)
    numpy_gpt2.save(old, tmp_path)
    held: list[GPT2 | None] = []

    def load() -> None:
        if not held or held[-1]:
            held.append(None)  # while it loads, which takes such steps as well
            held[-1] = which(tmp_path, [old, new])

    with pytest.MonkeyPatch.context() as patch:
        steps_patched(patch, load)
        numpy_gpt2.save(new, tmp_path)
    assert held == [old] * held.count(old) + [new] * held.count(new)
    assert old in held
    assert new in held


@pytest.mark.parametrize("after", ["read_hparams", "read_special_ids"])
@pytest.mark.parametrize("pair", [(1, 2), (2, 1)], ids=str)
def test_a_save_during_a_load_gives_the_new_model(
    tmp_path: Path, models: list[GPT2], pair: tuple[int, int], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (models[i] for i in pair)
    numpy_gpt2.save(old, tmp_path)
    original, calls = getattr(config, after), []

    def read(folder: Path, *args: Any) -> Any:
        result = original(folder, *args)
        calls.append(folder)
        if len(calls) == 1:
            numpy_gpt2.save(new, tmp_path)
        return result

    monkeypatch.setattr(config, after, read)
    assert which(tmp_path, [old, new]) is new
    assert len(calls) == 2


@pytest.mark.parametrize("pair", [(0, 2), (2, 1)], ids=str)
def test_the_tokenizer_alone_is_the_one_that_was_saved_last(
    tmp_path: Path, models: list[GPT2], pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    old, new = (models[i] for i in pair)
    numpy_gpt2.save(old, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "put_in_place", interrupt)
        with pytest.raises(KeyboardInterrupt):
            numpy_gpt2.save(new, tmp_path)
    if new.tokenizer:
        assert Tokenizer.load(tmp_path).encoder == new.tokenizer.encoder
    else:
        with pytest.raises(FileNotFoundError, match="there is no vocabulary"):
            Tokenizer.load(tmp_path)
    assert which(tmp_path, [old, new]) is new


def test_without_links_files_are_copied(tmp_path: Path, models: list[GPT2], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    numpy_gpt2.save(models[2], tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    numpy_gpt2.save(models[1], tmp_path)
    assert check(tmp_path, models) is models[1]


def test_a_model_saved_in_half_precision_is_that_of_transformers_half(tmp_path: Path, tiny: GPT2) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).half()
    peer.save_pretrained(tmp_path / "theirs")
    whole = numpy_gpt2.load(tmp_path / "theirs")  # float32, of numbers that float16 has
    numpy_gpt2.save(whole, tmp_path / "ours", dtype="float16")
    theirs, ours = (tmp_path / name / "model.safetensors" for name in ("theirs", "ours"))
    assert ours.stat().st_size == pytest.approx(theirs.stat().st_size, abs=2000)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "ours").dtype == peer.dtype
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", dtype="auto").state_dict()
    assert all(tensor.equal(again[name]) for name, tensor in peer.state_dict().items())


def test_half_precision_rounds_each_number(tmp_path: Path) -> None:
    model = random_model(HPARAMS, "float64", seed=3)
    numpy_gpt2.save(model, tmp_path, dtype="float16")
    loaded = numpy_gpt2.load(tmp_path)
    assert loaded.params.wte.dtype == np.float32
    np.testing.assert_array_equal(loaded.params.wte, model.params.wte.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("saved", "as_dtype"), [("float64", "float32"), ("float32", "float64")])
def test_another_dtype_converts_each_number_once(tmp_path: Path, saved: str, as_dtype: str) -> None:
    model = random_model(HPARAMS, saved, seed=5)
    numpy_gpt2.save(model, tmp_path, dtype=as_dtype)
    loaded = numpy_gpt2.load(tmp_path, dtype=as_dtype)
    np.testing.assert_array_equal(loaded.params.wte, model.params.wte.astype(as_dtype))


@pytest.mark.parametrize("number", [1e5, -1e5])
def test_a_number_that_half_precision_does_not_have_leaves_the_old_model(tmp_path: Path, number: float) -> None:
    model = random_model(HPARAMS, "float32", seed=4)
    numpy_gpt2.save(model, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model.params.h[1].mlp.c_fc.w[0, 0] = number
    said = "h1/mlp/c_fc/w has a number outside ±65504, the range of float16: save it in float32"
    with pytest.raises(ValueError, match=said):
        numpy_gpt2.save(model, tmp_path, dtype="float16")
    assert (tmp_path / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match=said):
        numpy_gpt2.save(model, tmp_path / "new", dtype="float16")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="dtype must be float16, float32 or float64, not 'int8'"):
        numpy_gpt2.save(model, tmp_path, dtype="int8")


def test_the_numbers_of_a_second_head_are_checked_as_well(tmp_path: Path, models: list[GPT2]) -> None:
    model = models[1]
    head = Linear(w=np.full((96, 1), 1e5, np.float32), b=np.ones(1, np.float32))
    wide = GPT2(model.hparams, model.params, None, "wide", head)
    with pytest.raises(ValueError, match="has a number outside ±65504, the range of float16: save it in float32"):
        numpy_gpt2.save(wide, tmp_path / "new", dtype="float16")


def test_a_number_that_is_infinite_already_stays_so(tmp_path: Path) -> None:
    model = random_model(HPARAMS, "float32", seed=6)
    model.params.wte[0, 0] = np.inf
    numpy_gpt2.save(model, tmp_path, dtype="float16")
    assert numpy_gpt2.load(tmp_path).params.wte[0, 0] == np.inf
