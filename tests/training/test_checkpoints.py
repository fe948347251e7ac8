"""A run on disk: it goes on as if it had never stopped, and whatever interrupts a save, one of two states is whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, random_ids, random_model
from model_files import assert_same_parameters
from on_disk import steps_patched

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine.files import SAVED, SAVING, is_settled
from numpy_gpt2.params import Array, HParams, named_arrays
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, END_OF_TEXT, Tokenizer
from numpy_gpt2.training import checkpoints
from numpy_gpt2.training.loop import Options, Training
from numpy_gpt2.weights import safetensors

HPARAMS = SHAPES[1]
IDS = random_ids(HPARAMS, 1, 300)[0]
STEPS = 9
KINDS: dict[str, dict[str, Any]] = {
    "the whole model": {},
    "the last blocks": {"train_last": 2},
    "low-rank updates": {"lora_rank": 2, "learning_rate": 0.05},
    "low-rank updates of the last block": {"lora_rank": 2, "train_last": 1, "dropout": 0.2},
    "dropout": {"dropout": 0.2},
    "Muon": {"optimizer": "muon", "learning_rate": 0.02},
    "Muon of the last block": {"optimizer": "muon", "train_last": 1},
    "Muon of low-rank updates": {"optimizer": "muon", "lora_rank": 2},
    "sparing": {"sparing": True},
    "documents": {"documents": True, "dropout": 0.1},
}
FILES = {"config.json", "model.safetensors", "training.safetensors"}
FILE = "training.safetensors"


def with_vocabulary() -> GPT2:
    hparams = HParams(n_vocab=257, n_ctx=24, n_embd=12, n_head=3, n_layer=2)
    tokens = [*BYTE_TO_CHARACTER.values(), END_OF_TEXT]
    tokenizer = Tokenizer({token: id for id, token in enumerate(tokens)}, [])
    return GPT2(hparams, random_model(hparams, "float32").params, tokenizer, "bytes")


def text(options: Options) -> Array:
    if not options.documents:
        return IDS
    rng = np.random.default_rng(0)
    return np.concatenate([np.append(rng.integers(0, 256, n), 256) for n in (3, 40, 11, 1)])


def started(kind: str = "the whole model", dtype: str = "float32", n_threads: int = 2, **others: Any) -> Training:
    values = {"batch_size": 3, "window": 10, "steps": STEPS, "warmup": 2, "seed": 5, **KINDS[kind], **others}
    options = Options(**values)
    model = with_vocabulary() if options.documents else random_model(HPARAMS, dtype)
    return Training(model, text(options), options, n_threads)


def after(n: int, **others: Any) -> Training:
    """A run after n steps."""
    training = started(**others)
    losses(training, n)
    return training


def losses(training: Training, n: int) -> list[float]:
    return [training.next_step().loss for _ in range(n)]


def all_arrays(training: Training) -> dict[str, Array]:
    """Copies of everything that a run is made of: parameters, means, and low-rank updates."""
    found = {f"params/{name}": array for name, array in named_arrays(training.model.params)}
    found |= {f"m/{name}": array for name, array in training.optimizer.m.items()}
    found |= {f"v/{name}": array for name, array in training.optimizer.v.items()}
    if training.adapters:
        found |= {f"adapter/{name}": array for name, array in training.adapters.arrays.items()}
        found |= {f"base/{name}": array for name, array in training.adapters.base.items()}
    return {name: array.copy() for name, array in found.items()}


def assert_same(run: Training, other: Training) -> None:
    ours, theirs = all_arrays(run), all_arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert (run.step, run.optimizer.n_updates) == (other.step, other.optimizer.n_updates)
    assert (run.options, run.digest(), run.source) == (other.options, other.digest(), other.source)


class TestGoingOn:
    @pytest.mark.parametrize("n_threads", [1, 2])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_run_that_was_stopped_is_the_run_that_never_was(self, tmp_path: Path, kind: str, n_threads: int) -> None:
        """Stopped at three seeded points, and each time opened from the disk."""
        whole = started(kind, n_threads=n_threads)
        expected = losses(whole, STEPS)
        points = sorted(random.Random(kind + str(n_threads)).sample(range(STEPS), 3))
        training, found = started(kind, n_threads=n_threads), []
        for point in points:
            found += losses(training, point - training.step)
            checkpoints.save(training, tmp_path)
            restored = checkpoints.restore(tmp_path, text(training.options), n_threads)
            assert_same(restored, training)
            training = restored
        found += losses(training, STEPS - training.step)
        assert found == expected
        assert_same(training, whole)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_in_the_dtype_of_the_model(self, tmp_path: Path, dtype: str) -> None:
        whole, training = started(dtype=dtype), after(3, dtype=dtype)
        checkpoints.save(training, tmp_path)
        restored = checkpoints.restore(tmp_path, IDS, 2)
        assert losses(restored, 4) == losses(whole, 7)[3:]
        assert restored.model.params.wte.dtype == dtype
        assert_same(restored, whole)

    def test_a_restored_run_does_not_change_the_file_it_came_from(self, tmp_path: Path) -> None:
        checkpoints.save(after(2), tmp_path)
        before = {name: (tmp_path / name).read_bytes() for name in FILES}
        training = checkpoints.restore(tmp_path, IDS, 2)
        losses(training, 2)
        assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
        checkpoints.save(training, tmp_path)
        assert_same(checkpoints.restore(tmp_path, IDS, 2), training)

    def test_more_steps_and_less_memory_may_be_asked_for(self, tmp_path: Path) -> None:
        checkpoints.save(after(STEPS), tmp_path)
        training = checkpoints.restore(tmp_path, IDS, 2, steps=20, sparing=True)
        assert training.options == Options(**{**vars(started().options), "steps": 20, "sparing": True})
        assert len(losses(training, 11)) == 11

    def test_the_number_of_threads_is_that_of_the_caller(self, tmp_path: Path) -> None:
        checkpoints.save(after(2, n_threads=2), tmp_path)
        assert checkpoints.restore(tmp_path, IDS, 3).n_threads == 3

    def test_what_a_run_says_of_itself(self, tmp_path: Path) -> None:
        training = after(4, kind="low-rank updates", n_threads=2)
        checkpoints.save(training, tmp_path)
        assert checkpoints.read_about(tmp_path) == {
            "step": 4,
            "options": training.options,
            "source": "random",
            "text": training.digest(),
            "threads": 2,
        }
        assert checkpoints.holds_run(tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {*FILES, ".lock"}

    def test_the_source_is_the_first_model_however_often_it_goes_on(self, tmp_path: Path) -> None:
        training = after(1)
        for folder in (tmp_path / "a", tmp_path / "b"):
            checkpoints.save(training, folder)
            training = checkpoints.restore(folder, IDS, 2)
        assert training.source == "random"
        assert training.model.name == str(tmp_path / "b")


class TestTheModel:
    @pytest.mark.parametrize("kind", ["the whole model", "low-rank updates", "documents"])
    def test_it_opens_as_any_other(self, tmp_path: Path, kind: str) -> None:
        training = after(3, kind=kind)
        checkpoints.save(training, tmp_path)
        loaded = numpy_gpt2.load(tmp_path)
        assert_same_parameters(loaded, training.model)
        assert (loaded.tokenizer and loaded.tokenizer.encoder) == (
            training.model.tokenizer and training.model.tokenizer.encoder
        )

    @pytest.mark.parametrize("kind", ["the whole model", "low-rank updates"])
    def test_transformers_opens_it(self, tmp_path: Path, kind: str) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        training = after(3, kind=kind)
        checkpoints.save(training, tmp_path)
        peer = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            expected = peer(torch.tensor(IDS[None, :40])).logits[0].numpy()
        np.testing.assert_allclose(training.model.logits(IDS[:40]), expected, rtol=1e-4, atol=1e-4)

    def test_the_other_file_is_safetensors_without_a_pickle(self, tmp_path: Path) -> None:
        theirs = pytest.importorskip("safetensors.numpy")
        training = after(3, kind="low-rank updates")
        checkpoints.save(training, tmp_path)
        expected = {name: array for name, array in all_arrays(training).items() if not name.startswith("params/")}
        found = theirs.load_file(tmp_path / FILE)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)

    def test_the_folder_may_be_given_as_text(self, tmp_path: Path) -> None:
        training = after(2)
        checkpoints.save(training, str(tmp_path / "run"))
        restored = checkpoints.restore(str(tmp_path / "run"), IDS, 2)
        assert_same(restored, training)
        assert restored.model.name == str(tmp_path / "run")

    def test_another_model_saved_to_the_folder_ends_the_run(self, tmp_path: Path) -> None:
        checkpoints.save(after(2), tmp_path)
        numpy_gpt2.save(random_model(HPARAMS, seed=9), tmp_path)
        assert not (tmp_path / FILE).exists()
        assert not checkpoints.holds_run(tmp_path)
        with pytest.raises(FileNotFoundError):
            checkpoints.restore(tmp_path, IDS)


def rewritten(file: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """The file of a run with another header: `change` takes its metadata and what the run says of itself."""
    metadata, tensors = safetensors.open_file(file)
    arrays = {name: np.array(tensor.read(np.float32)) for name, tensor in tensors.items()}
    about = json.loads(metadata[checkpoints.KEY])
    changed: dict[str, Any] = dict(metadata)
    change(changed, about)
    if checkpoints.KEY in changed and changed[checkpoints.KEY] == metadata[checkpoints.KEY]:
        changed[checkpoints.KEY] = json.dumps(about)
    shapes = {name: array.shape for name, array in arrays.items()}
    safetensors.write_file(file, shapes, np.float32, arrays.__getitem__, changed)


class TestRefusals:
    @pytest.mark.parametrize("change", ["a token", "one more", "one less"])
    def test_another_text(self, tmp_path: Path, change: str) -> None:
        checkpoints.save(after(2), tmp_path)
        ids = IDS.copy()
        ids[123] = (ids[123] + 1) % HPARAMS.n_vocab
        others = {"a token": ids, "one more": np.append(IDS, 0), "one less": IDS[:-1]}
        with pytest.raises(ValueError, match=f"^the run in {tmp_path} was trained on another text: to go on, it needs"):
            checkpoints.restore(tmp_path, others[change], 2)

    @pytest.mark.parametrize("act", [checkpoints.read_about, lambda folder: checkpoints.restore(folder, IDS)])
    def test_no_run(self, tmp_path: Path, act: Callable[[Path], object]) -> None:
        numpy_gpt2.save(random_model(HPARAMS), tmp_path)
        for folder in (tmp_path, tmp_path / "nowhere"):
            assert not checkpoints.holds_run(folder)
            expected = f"^there is no run to go on with in {folder}: training.safetensors is missing$"
            with pytest.raises(FileNotFoundError, match=expected):
                act(folder)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\0" * 100, None],
        ids=["empty", "a brace", "zeros", "cut short"],
    )
    def test_a_damaged_file(self, tmp_path: Path, content: bytes | None) -> None:
        checkpoints.save(after(2), tmp_path)
        file = tmp_path / FILE
        file.write_bytes(file.read_bytes()[:-1] if content is None else content)
        for act in (checkpoints.read_about, partial(checkpoints.restore, ids=IDS)):
            with pytest.raises(ValueError, match=f"^{file} is damaged, so the run cannot go on; the model beside it"):
                act(tmp_path)
        assert_same_parameters(numpy_gpt2.load(tmp_path), after(2).model)  # the model is sound

    @pytest.mark.parametrize(
        "change",
        [
            lambda metadata, about: metadata.clear(),
            lambda metadata, about: metadata.update({checkpoints.KEY: "{"}),
            lambda metadata, about: metadata.update({checkpoints.KEY: "[]"}),
            lambda metadata, about: metadata.update({checkpoints.KEY: "null"}),
            lambda metadata, about: about.pop("step"),
            lambda metadata, about: about.pop("text"),
            lambda metadata, about: about.pop("source"),
            lambda metadata, about: about.pop("threads"),
            lambda metadata, about: about.pop("options"),
            lambda metadata, about: about.update(step="x"),
            lambda metadata, about: about["options"].update(an_option_of_tomorrow=1),
        ],
        ids=["no metadata", "no JSON", "list", "null", *("step", "text", "source", "threads", "options"), "x", "other"],
    )
    def test_a_file_that_is_not_of_a_run(self, tmp_path: Path, change: Any) -> None:
        checkpoints.save(after(2), tmp_path)
        rewritten(tmp_path / FILE, change)
        for act in (checkpoints.read_about, partial(checkpoints.restore, ids=IDS)):
            expected = f"^{tmp_path / FILE} is not of a run that this version can go on with$"
            with pytest.raises(ValueError, match=expected):
                act(tmp_path)

    def test_the_file_of_a_model_in_its_place(self, tmp_path: Path) -> None:
        checkpoints.save(after(2), tmp_path)
        shutil.copy(tmp_path / "model.safetensors", tmp_path / FILE)
        with pytest.raises(ValueError, match="is not of a run that this version can go on with$"):
            checkpoints.restore(tmp_path, IDS)

    @pytest.mark.parametrize(
        "other",
        [
            lambda: after(2, kind="the last blocks"),
            lambda: Training(random_model(HPARAMS._replace(n_embd=20), "float32"), IDS, Options(window=10), 1),
            lambda: Training(random_model(HPARAMS._replace(n_layer=2), "float32"), IDS, Options(window=10), 1),
        ],
        ids=["the same model, whose options say something else", "another width", "another number of blocks"],
    )
    def test_the_file_of_another_run(self, tmp_path: Path, other: Callable[[], Training]) -> None:
        checkpoints.save(after(2), tmp_path)
        about = checkpoints.read_about(tmp_path)
        checkpoints.save(other(), tmp_path / "other")
        shutil.copy(tmp_path / "other" / FILE, tmp_path / FILE)
        rewritten(tmp_path / FILE, lambda _, told: told.update(options=vars(about["options"])))
        with pytest.raises(ValueError, match=f"^{tmp_path / FILE} does not belong to the model beside it$"):
            checkpoints.restore(tmp_path, IDS, 2)

    @pytest.mark.parametrize("kind", ["the whole model", "low-rank updates"])
    def test_a_step_that_was_interrupted_half_way(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = after(2, kind=kind)
        checkpoints.save(training, tmp_path)
        before = {name: (tmp_path / name).read_bytes() for name in FILES}

        def interrupted(*args: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training.optimizer, "update", interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.next_step()
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(ValueError, match="^the last step was interrupted half-way, so this is no state of the"):
                checkpoints.save(training, folder)
        assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
        assert not (tmp_path / "new").exists()

    def test_a_step_that_was_interrupted_before_it_changed_anything_can_be_saved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = after(2)

        def interrupted() -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training, "gradients", interrupted)
            with pytest.raises(KeyboardInterrupt):
                training.next_step()
        checkpoints.save(training, tmp_path)
        assert_same(checkpoints.restore(tmp_path, IDS, 2), after(2))

    def test_a_folder_that_holds_another_model_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        with pytest.raises(ValueError, match="holds another model"):
            checkpoints.save(after(1), tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


class TestInterruptedSaves:
    """The parameters and the means are always those of the same step."""

    @pytest.fixture
    def states(self) -> dict[int, Training]:
        """The run after two steps and after five, by the number of steps."""
        return {n: after(n, kind="low-rank updates of the last block") for n in (2, 5)}

    def held(self, folder: Path, states: dict[int, Training]) -> int:
        """How many steps the run in the folder has made; it must be whole, and the model on its own that of it."""
        training = checkpoints.restore(folder, IDS, 2)
        assert_same(training, states[training.step])
        assert_same_parameters(numpy_gpt2.load(folder), training.model)
        assert is_settled(folder)
        assert {file.name for file in folder.iterdir()} == {*FILES, ".lock"}
        return training.step

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
    def test_at_each_operation(self, tmp_path: Path, states: dict[int, Training], error: BaseException) -> None:
        found: list[int] = []
        for step in itertools.count(1):
            checkpoints.save(states[2], tmp_path)
            counted = itertools.count(1)

            def fail(counted: Iterator[int] = counted, step: int = step) -> None:
                if next(counted) == step:
                    raise error

            with pytest.MonkeyPatch.context() as patch:
                steps_patched(patch, fail)
                with contextlib.suppress(OSError, KeyboardInterrupt):
                    checkpoints.save(states[5], tmp_path)
            if next(counted) <= step:  # nothing failed
                break
            found.append(self.held(tmp_path, states))
        assert found == sorted(found)  # up to one operation the old state, and then the new one
        assert {*found} == {2, 5}
        assert self.held(tmp_path, states) == 5

    @pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
    def test_a_disk_that_is_full_while_a_file_is_written(
        self, tmp_path: Path, states: dict[int, Training], name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Path.open

        class Full:
            """A file that takes one piece, and no more."""

            def __init__(self, opened: Any) -> None:
                self.opened, self.left = opened, 1

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *args: object) -> None:
                self.opened.close()

            def write(self, piece: bytes) -> int:
                if not self.left:
                    raise OSError(errno.ENOSPC, "No space left on device")
                self.left -= 1
                return int(self.opened.write(piece))

        def opened(file: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            result = original(file, mode, *args, **kwargs)
            return Full(result) if file.name == name and mode == "wb" else result

        checkpoints.save(states[2], tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            expected = f"No space left on device: nothing was saved, and what the folder held is whole: '{tmp_path}'"
            with pytest.raises(OSError, match=expected):
                checkpoints.save(states[5], tmp_path)
        assert not (tmp_path / SAVING).exists()
        assert self.held(tmp_path, states) == 2
        checkpoints.save(states[5], tmp_path)
        assert self.held(tmp_path, states) == 5

    @pytest.mark.skipif(sys.platform == "win32", reason="a process is copied and killed")
    def test_a_killed_save(self, tmp_path: Path) -> None:
        """Killed at seeded lines of what saves a run."""
        states = {n: after(n, kind="low-rank updates of the last block", n_threads=1) for n in (2, 5)}
        names = ("files.py", "folder.py", "safetensors.py", "checkpoints.py")
        lines = itertools.count(1)

        def trace(at: float, frame: Any, event: str, arg: Any) -> Any:
            if not frame.f_code.co_filename.endswith(names):
                return None
            if event == "line" and next(lines) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return partial(trace, at)

        checkpoints.save(states[2], tmp_path)
        before = sys.gettrace()
        sys.settrace(partial(trace, -1))
        try:
            checkpoints.save(states[5], tmp_path / "other")
        finally:
            sys.settrace(before)
        n_lines = next(lines)
        shutil.rmtree(tmp_path / "other")
        rng = random.Random(0)
        points = [rng.randrange(1, n_lines) for _ in range(6)] + [n_lines - rng.randrange(1, 200) for _ in range(12)]
        found = []
        for point in points:
            checkpoints.save(states[2], tmp_path)
            lines = itertools.count(1)
            if not (pid := os.fork()):
                sys.settrace(partial(trace, point))
                checkpoints.save(states[5], tmp_path)
                os._exit(0)
            os.waitpid(pid, 0)
            training = checkpoints.restore(tmp_path, IDS, 1)
            assert_same(training, states[training.step])
            found.append(training.step)
        assert {*found} == {2, 5}

    def test_a_folder_in_which_a_save_was_interrupted_holds_a_run(self, tmp_path: Path) -> None:
        checkpoints.save(after(2), tmp_path / "whole")
        (tmp_path / "run").mkdir()
        (tmp_path / "whole").rename(tmp_path / "run" / SAVED)
        (tmp_path / "run" / SAVED / ".lock").unlink()
        assert checkpoints.holds_run(tmp_path / "run")
        assert checkpoints.read_about(tmp_path / "run")["step"] == 2
        assert_same(checkpoints.restore(tmp_path / "run", IDS, 2), after(2))

    def test_who_reads_during_a_save_gets_one_of_the_two_states(
        self, tmp_path: Path, states: dict[int, Training]
    ) -> None:
        checkpoints.save(states[2], tmp_path)
        found: list[int] = []

        def read() -> None:
            if not found or found[-1]:
                found.append(0)  # while it reads, which takes such operations as well
                training = checkpoints.restore(tmp_path, IDS, 2)
                assert_same(training, states[training.step])
                found[-1] = training.step

        with pytest.MonkeyPatch.context() as patch:
            steps_patched(patch, read)
            checkpoints.save(states[5], tmp_path)
        assert found == sorted(found)
        assert {*found} == {2, 5}
