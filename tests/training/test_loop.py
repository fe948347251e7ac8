"""The loop: what it refuses, what it leaves alone, and when it evaluates, saves and stops."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, on_device, random_ids, random_model

import numpy_gpt2
from numpy_gpt2.evaluation import scoring
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams, init_params, named_arrays
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, END_OF_TEXT, Tokenizer
from numpy_gpt2.training import checkpoints, forward, loop
from numpy_gpt2.training.loop import Options, Report, Training

HPARAMS = SHAPES[1]  # a context of 40
IDS = random_ids(HPARAMS, 1, 300)[0]
SMALL: dict[str, Any] = {"batch_size": 3, "window": 8, "steps": 6, "warmup": 2}

TOKENS = [*BYTE_TO_CHARACTER.values(), END_OF_TEXT]  # a token for each byte
END = 256
TEXT = "The king gave his daughter to the poor miller's son. née\n"


def started(dtype: str = "float64", ids: Array = IDS, n_threads: int = 1, **options: Any) -> Training:
    return Training(random_model(HPARAMS, dtype), ids, Options(**{**SMALL, **options}), n_threads)


def with_vocabulary(dtype: str = "float32") -> GPT2:
    hparams = HParams(n_vocab=257, n_ctx=24, n_embd=12, n_head=3, n_layer=2)
    tokenizer = Tokenizer({token: id for id, token in enumerate(TOKENS)}, [])
    return GPT2(hparams, random_model(hparams, dtype).params, tokenizer, "bytes")


def encoded(model: GPT2, text: str) -> Array:
    assert model.tokenizer
    return np.array(model.tokenizer.encode(text, allow_special=True))


def copies(training: Training) -> dict[str, Array]:
    return {name: array.copy() for name, array in named_arrays(training.model.params)}


def batch(training: Training) -> tuple[Array, Array]:
    """What the next step learns from."""
    return training.random_batch(np.random.default_rng((training.options.seed, training.step)))


def losses(training: Training, n: int) -> list[float]:
    return [training.next_step().loss for _ in range(n)]


class TestRefusals:
    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("steps", 0, "steps must be a whole number, 1 or more, not 0"),
            ("steps", 2.5, "steps must be a whole number, 1 or more, not 2.5"),
            ("batch_size", 0, "batch_size must be a whole number, 1 or more, not 0"),
            ("window", -1, "window must be a whole number, 0 to 40, not -1"),
            ("window", 41, "window must be a whole number, 0 to 40, not 41"),
            ("warmup", -1, "warmup must be a whole number, 0 or more, not -1"),
            ("train_last", 4, "train_last must be a whole number, 0 to 3, not 4"),
            ("train_last", -1, "train_last must be a whole number, 0 to 3, not -1"),
            ("lora_rank", 11, "lora_rank must be a whole number, 0 to 10, not 11"),
            ("lora_rank", -1, "lora_rank must be a whole number, 0 to 10, not -1"),
            ("seed", -1, "seed must be a whole number, 0 or more, not -1"),
            ("learning_rate", 0.0, "learning_rate must be a number above 0, not 0.0"),
            ("learning_rate", -1e-3, "learning_rate must be a number above 0, not -0.001"),
            ("learning_rate", math.inf, "learning_rate must be a number above 0, not inf"),
            ("learning_rate", math.nan, "learning_rate must be a number above 0, not nan"),
            ("clip", 0.0, "clip must be a number above 0, not 0.0"),
            ("learning_rate", "fast", "learning_rate must be a number above 0, not 'fast'"),
            ("clip", math.inf, "clip must be a number above 0, not inf"),
            ("clip", math.nan, "clip must be a number above 0, not nan"),
            ("weight_decay", -0.1, "weight_decay must be a number of at least 0, not -0.1"),
            ("weight_decay", math.nan, "weight_decay must be a number of at least 0, not nan"),
            ("optimizer", "sgd", "optimizer must be adamw or muon, not 'sgd'"),
            ("dropout", 1.0, "dropout must be a number of at least 0 and less than 1, not 1.0"),
            ("dropout", -0.1, "dropout must be a number of at least 0 and less than 1, not -0.1"),
            ("dropout", math.nan, "dropout must be a number of at least 0 and less than 1, not nan"),
        ],
    )
    def test_an_option_out_of_its_range(self, option: str, value: float, expected: str) -> None:
        with pytest.raises(ValueError, match=f"^{expected}$"):
            started(**{option: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "options",
        [
            {"steps": 1, "batch_size": 1, "warmup": 0, "window": 1, "seed": 2**70},
            {"window": 40, "train_last": 3, "lora_rank": 10, "weight_decay": 0.0, "dropout": 0.99},
        ],
        ids=str,
    )
    def test_the_ends_of_the_ranges(self, options: dict[str, Any]) -> None:
        training = started(**options)
        before = copies(training)
        assert math.isfinite(training.next_step().loss)
        assert any((array != before[name]).any() for name, array in named_arrays(training.model.params))

    @pytest.mark.parametrize("n", [1, 8])
    def test_a_text_too_short_for_a_window(self, n: int) -> None:
        expected = f"the text has {n} tokens, and a window takes 9, with the token that follows"
        with pytest.raises(ValueError, match=f"^{expected}: give a longer text, or a smaller window$"):
            started(ids=IDS[:n])
        started(ids=IDS[:9]).next_step()

    def test_no_text(self) -> None:
        with pytest.raises(ValueError, match="^there are no token ids to read"):
            started(ids=IDS[:0])

    @pytest.mark.parametrize("id", [-1, 11])
    def test_ids_outside_the_vocabulary(self, id: int) -> None:
        with pytest.raises(ValueError, match=f"^token id {id} is outside the vocabulary, which has the ids 0 to 10$"):
            started(ids=np.append(IDS, id))

    def test_documents_without_a_document(self) -> None:
        with pytest.raises(ValueError, match=r"^there is no document in the text: it has nothing but <\|endoftext\|>$"):
            Training(with_vocabulary(), np.full(50, END), Options(documents=True))

    def test_documents_without_a_vocabulary(self) -> None:
        with pytest.raises(ValueError, match="vocabulary"):
            started(documents=True)

    def test_a_model_on_a_device(self) -> None:
        expected = r'^training computes in main memory: model.to\("numpy"\) brings the model there$'
        with pytest.raises(ValueError, match=expected):
            Training(on_device(random_model(HPARAMS)), IDS, Options(**SMALL))


class TestSteps:
    def test_by_default_a_window_is_the_context_but_no_longer_than_256(self) -> None:
        for n_ctx, expected in ((40, 40), (256, 256), (300, 256)):
            assert loop.window(Options(), HPARAMS._replace(n_ctx=n_ctx)) == expected
        assert loop.window(Options(window=300), HPARAMS._replace(n_ctx=300)) == 300
        assert batch(started(window=0))[0].shape == (3, 40)

    def test_documents_are_rows_of_a_batch(self) -> None:
        model = with_vocabulary()
        training = Training(model, encoded(model, "ab<|endoftext|>c<|endoftext|>"), Options(documents=True))
        ids, targets = batch(training)
        assert {tuple(row) for row in ids.tolist()} <= {(END, *b"ab"), (END, *b"c", END)}
        step = training.next_step()
        assert step.n_tokens == np.count_nonzero(targets != scoring.IGNORED) < targets.size

    @pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"lora_rank": 2}, {"train_last": 1}], ids=str)
    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_the_same_seed_gives_the_same_numbers_and_another_one_others(
        self, options: dict[str, Any], n_threads: int
    ) -> None:
        first, again, other = (started("float32", n_threads=n_threads, seed=seed, **options) for seed in (3, 3, 4))
        expected = losses(first, 5)
        assert len({*expected}) == 5
        assert losses(again, 5) == expected
        assert not {*losses(other, 5)} & {*expected}
        for name, array in named_arrays(again.model.params):
            np.testing.assert_array_equal(array, copies(first)[name], name)

    def test_each_step_has_a_batch_of_its_own_which_asking_does_not_change(self) -> None:
        training = started()
        seen = []
        for _ in range(6):
            np.testing.assert_array_equal(batch(training), batch(training))
            seen.append(batch(training)[0].tobytes())
            training.next_step()
        assert len({*seen}) == 6

    def test_each_step_drops_other_numbers(self) -> None:
        """The batch is always the same, since the text has one window, and the parameters hardly change."""
        plain, dropped = (
            losses(started(ids=IDS[:9], learning_rate=1e-12, batch_size=1, dropout=rate), 5) for rate in (0.0, 0.2)
        )
        assert plain == pytest.approx([plain[0]] * 5, abs=1e-8)
        assert min(np.diff(sorted(dropped))) > 1e-4

    def test_what_a_step_says(self) -> None:
        training = started(steps=20, warmup=100, learning_rate=1e-2)
        ids, targets = batch(training)
        (logits,) = (random_model(HPARAMS).logits(ids),)
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        first = training.next_step()
        assert first.loss == pytest.approx(
            -np.mean(np.take_along_axis(log_probabilities, targets[..., None], -1)), rel=1e-12
        )
        assert (first.step, first.n_tokens) == (1, 24)
        assert first.learning_rate == pytest.approx(0.5e-2)  # the warm-up is no longer than a tenth: 2 steps
        rates = [training.next_step().learning_rate for _ in range(19)]
        assert rates[:2] == pytest.approx([1e-2, 1e-2])
        assert max(np.diff(rates[1:])) < 0
        assert 1e-3 < rates[-1] < 1.1e-3
        assert training.step == 20

    def test_long_gradients_are_shortened_and_their_length_is_told(self) -> None:
        """The first step of Adam has the same length anyway, but m has not."""
        free, clipped = started(clip=1e9), started(clip=0.01)
        norms = free.next_step().norm, clipped.next_step().norm
        assert norms[0] == norms[1] > 0.1
        lengths = [math.sqrt(sum(np.sum(m**2) for m in each.optimizer.m.values())) for each in (free, clipped)]
        assert lengths == pytest.approx([0.1 * norms[0], 0.1 * 0.01], rel=1e-9)

    def test_weight_decay_pulls_matrices_towards_zero(self) -> None:
        plain, decayed = (started(weight_decay=decay, learning_rate=0.1) for decay in (0.0, 0.5))
        plain.next_step()
        rate = decayed.next_step().learning_rate
        for name, w in named_arrays(random_model(HPARAMS).params):
            difference = dict(named_arrays(plain.model.params))[name] - dict(named_arrays(decayed.model.params))[name]
            np.testing.assert_allclose(difference, rate * 0.5 * w if w.ndim > 1 else 0 * w, atol=1e-12, err_msg=name)

    @pytest.mark.parametrize("train_last", [1, 2])
    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_the_last_blocks_alone(self, train_last: int, n_threads: int) -> None:
        training = started("float32", n_threads=n_threads, train_last=train_last, weight_decay=0.5, learning_rate=0.1)
        before = copies(training)
        losses(training, 4)
        changed = {name for name, array in named_arrays(training.model.params) if (array != before[name]).any()}
        prefixes = (*(f"h{i}/" for i in range(3 - train_last, 3)), "ln_f/")
        assert changed == {name for name in before if name.startswith(prefixes)}

    def test_all_blocks_are_not_the_whole_model(self) -> None:
        training = started(train_last=3)
        before = copies(training)
        losses(training, 2)
        for name in ("wte", "wpe"):
            np.testing.assert_array_equal(copies(training)[name], before[name])

    def test_the_whole_model(self) -> None:
        training = started(learning_rate=0.1)
        before = copies(training)
        losses(training, 3)
        assert all((array != before[name]).any() for name, array in named_arrays(training.model.params))

    def test_sparing_gives_the_same_numbers(self) -> None:
        assert losses(started("float32", sparing=True), 5) == losses(started("float32"), 5)

    @pytest.mark.parametrize("n_threads", [1, 2])
    def test_sparing_computes_each_block_a_second_time(self, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = []
        for sparing in (False, True):
            training = started(sparing=sparing, n_threads=n_threads)
            calls: list[int] = []
            training.gradients()  # also compares what is computed, the first time
            with monkeypatch.context() as patch:
                original = forward.block
                patch.setattr(forward, "block", lambda *args, o=original, c=calls: (c.append(1), o(*args))[1])
                training.next_step()
            counts.append(len(calls))
        assert counts == [3 * 3, 2 * 3 * 3]  # texts and blocks

    def test_the_digest_is_that_of_the_ids(self) -> None:
        expected = hashlib.sha256(b"".join(int(id).to_bytes(4, "little") for id in IDS)).hexdigest()
        assert started().digest() == started(ids=IDS.astype(np.uint16)).digest() == expected
        assert started(ids=IDS[::-1]).digest() != expected

    def test_a_small_text_is_learned_by_heart(self) -> None:
        model = GPT2(HPARAMS, init_params(HPARAMS), None, "new")
        options = Options(steps=200, batch_size=2, window=12, learning_rate=1e-2)
        training = Training(model, np.tile(np.arange(11), 4), options, n_threads=1)
        found = losses(training, 200)
        assert found[0] == pytest.approx(math.log(11), rel=0.05)
        assert found[-1] < 0.05


class TestNotFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_parameter_that_is_not_a_number_ends_the_run_and_nothing_is_changed(self, value: float) -> None:
        training = started()
        training.model.params.h[1].mlp.c_fc.b[3] = value
        before = copies(training)
        expected = "^step 1 cannot be made: its loss is nan, the length of its gradients nan. Try a lower learning rate"
        for act in (training.check, training.next_step):
            with pytest.raises(ValueError, match=expected):
                act()
        for name, array in named_arrays(training.model.params):
            np.testing.assert_array_equal(array, before[name], name)
        assert training.step == training.optimizer.n_updates == 0
        assert not any(m.any() for m in training.optimizer.m.values())

    @pytest.mark.parametrize(("loss", "norm"), [(2.5, math.inf), (2.5, math.nan), (math.inf, 1.0), (math.nan, 1.0)])
    def test_either_of_them_is_enough(self, loss: float, norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
        training = started()
        before, (_, grads, n_tokens) = copies(training), training.gradients()
        grads = {name: np.zeros_like(array) for name, array in grads.items()}
        grads["wpe"][3, 2] = norm
        monkeypatch.setattr(training, "gradients", lambda: (loss, grads, n_tokens))
        expected = (
            f"^step 1 cannot be made: its loss is {loss:.4g}, the length of its gradients {norm:.4g}. Try a lower"
        )
        for act in (training.check, training.next_step, lambda: training.check_finite(loss, norm)):
            with pytest.raises(loop.DivergedError, match=expected):
                act()
        for name, array in named_arrays(training.model.params):
            np.testing.assert_array_equal(array, before[name], name)
        assert not training.is_torn

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_run_that_diverges_does_not_take_the_place_of_the_last_good_checkpoint(self, tmp_path: Path) -> None:
        training = started("float32", steps=50, warmup=0)
        assert (
            len([*loop.run(training, save_every=2, save=lambda t: checkpoints.save(t, tmp_path), stop=steps(4))]) == 4
        )
        saved = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        training.optimizer.m["wte"][0, 0] = 1e38  # throws that parameter far away
        training.options = Options(**{**SMALL, "steps": 50, "learning_rate": 1e30})
        with pytest.raises(ValueError, match=r"^step \d cannot be made: its loss is nan"):
            for _ in loop.run(training, save_every=1, save=lambda t: checkpoints.save(t, tmp_path)):
                pass
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == saved
        assert checkpoints.restore(tmp_path, IDS, 1).step == 4

    def test_a_check_changes_nothing(self) -> None:
        checked, plain = started("float32", dropout=0.1, lora_rank=2), started("float32", dropout=0.1, lora_rank=2)
        found = []
        for _ in range(4):
            checked.check()
            found += losses(checked, 1)
        assert found == losses(plain, 4)


class TestEvaluation:
    @pytest.mark.parametrize("n_threads", [1, 2, 3])
    @pytest.mark.parametrize("n", [2, 3, 24, 25, 26, 37, 200])
    def test_bits_per_byte_are_those_of_the_scores(self, n: int, n_threads: int) -> None:
        """Of texts that are shorter and longer than the context, which is 24."""
        model = with_vocabulary("float64")
        ids = np.resize(encoded(model, TEXT), n)
        training = Training(model, encoded(model, TEXT), Options(), n_threads)
        assert model.tokenizer
        n_bytes = len(model.tokenizer.decode_bytes(ids[1:]))
        scores = scoring.join(model.score(ids))
        expected = -float(np.sum(scores.log_probabilities)) / math.log(2) / n_bytes
        assert loop.evaluate(training, ids) == pytest.approx(expected, rel=1e-12)
        assert loop.evaluate(training, ids) == pytest.approx(model.loss(ids) * (n - 1) / math.log(2) / n_bytes)

    def test_bytes_are_counted_not_tokens(self, tiny: GPT2) -> None:
        ids = encoded(tiny, TEXT)
        training = Training(tiny, np.tile(ids, 20), Options(), 1)
        n_bytes = len(TEXT.encode()) - len("The")
        expected = tiny.loss(ids) * (len(ids) - 1) / math.log(2) / n_bytes
        assert loop.evaluate(training, ids) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("held_out", [None, np.array([], int), np.array([5])], ids=["none", "empty", "one token"])
    def test_without_a_text_there_is_no_figure(self, held_out: Array | None) -> None:
        model = with_vocabulary()
        assert loop.evaluate(Training(model, encoded(model, TEXT), Options(), 1), held_out) is None

    def test_without_a_vocabulary_there_is_no_figure(self) -> None:
        """Bytes cannot be counted."""
        assert loop.evaluate(started(), IDS[:20]) is None
        reports = [*loop.run(started(), IDS[:20], evaluate_every=1)]
        assert all(report.bits_per_byte is None for report in reports)

    def test_a_sample_is_what_the_model_generates(self) -> None:
        model = with_vocabulary()
        for prompt, n in (("", 23), ("The king", 15), ("T" * 23, 1)):
            found = loop.sample(model, prompt, seed=7)
            assert found == prompt + str(model.generate(prompt, max_new_tokens=n, seed=7))
        assert loop.sample(model, "The", seed=7) != loop.sample(model, "The", seed=8)
        assert loop.sample(random_model(HPARAMS), "", seed=7) is None

    def test_a_sample_has_at_most_48_tokens(self, tiny: GPT2) -> None:
        found = loop.sample(tiny, "The king", seed=1)
        assert found == "The king" + str(tiny.generate("The king", max_new_tokens=48, seed=1))


def steps(n: int) -> Any:
    """For `stop`: says after the n-th step that it was the last."""
    counted = itertools.count(1)
    return lambda: next(counted) == n


class TestRun:
    def reports(self, **options: Any) -> tuple[list[Report], list[int]]:
        """The reports of a run of seven steps, and after which of them it was saved."""
        model = with_vocabulary()
        training = Training(model, encoded(model, TEXT), Options(**{**SMALL, "steps": 7}), 1)
        saved: list[int] = []
        held_out = encoded(model, "The miller")
        reports = []
        for report in loop.run(training, held_out, save=lambda t: saved.append(t.step), **options):
            assert report.step.step == training.step
            if report.bits_per_byte is not None:
                assert report.bits_per_byte == loop.evaluate(training, held_out)
                assert report.sample == loop.sample(model, options.get("prompt", ""), 0)
            reports.append(report)
        return reports, saved

    @pytest.mark.parametrize(
        ("every", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (100, [7])], ids=str
    )
    def test_it_evaluates_and_saves_when_it_should_and_at_the_end(self, every: int, expected: list[int]) -> None:
        reports, saved = self.reports(evaluate_every=every, save_every=100, prompt="The")
        assert [report.step.step for report in reports] == [1, 2, 3, 4, 5, 6, 7]
        assert [report.step.step for report in reports if report.bits_per_byte is not None] == expected
        assert [report.step.step for report in reports if report.sample is not None] == expected
        assert saved == [7]
        assert self.reports(evaluate_every=100, save_every=every)[1] == expected

    @pytest.mark.parametrize("n", [1, 4, 6])
    def test_it_stops_when_asked_and_saves(self, n: int) -> None:
        reports, saved = self.reports(evaluate_every=100, save_every=100, stop=steps(n))
        assert [report.step.step for report in reports] == [*range(1, n + 1)]
        assert saved == [n]
        assert reports[-1].sample is None

    def test_evaluation_changes_no_numbers(self) -> None:
        plain, evaluated = (self.reports(evaluate_every=every)[0] for every in (100, 1))
        assert [report.step for report in plain] == [report.step for report in evaluated]

    def test_a_step_is_reported_before_the_run_is_saved(self) -> None:
        """So a log never lacks a step that was saved."""
        training, saved = started(), []
        for report in loop.run(training, save=lambda t: saved.append(t.step), save_every=2):
            assert saved == [*range(2, report.step.step, 2)]
        assert saved == [2, 4, 6]

    def test_a_text_is_one_row(self) -> None:
        training = started()
        with pytest.raises(ValueError, match="^the text must be one row of token ids, not several"):
            Training(training.model, np.stack([training.ids] * 2), training.options)

    def test_a_run_that_is_over_makes_no_step(self) -> None:
        training = started()
        assert len([*loop.run(training)]) == 6
        assert [*loop.run(training)] == []

    def test_an_error_of_saving_is_raised(self) -> None:
        def fail(training: Training) -> None:
            raise OSError("no space")

        training = started()
        with pytest.raises(OSError, match="no space"):
            list(loop.run(training, save=fail, save_every=1))

    def test_without_a_vocabulary_nothing_is_sampled(self) -> None:
        assert all(report.sample is None for report in loop.run(started(), evaluate_every=1))


FORKED = """
import os, signal
import numpy as np
from conftest import SHAPES, random_model
from numpy_gpt2.training.loop import Options, Training

training = Training(random_model(SHAPES[1], "float32"), np.arange(300) % 11, Options(batch_size=4, window=8), 2)
training.next_step()  # makes the threads
read, write = os.pipe()
if not (pid := os.fork()):
    signal.alarm(20)  # ends it if it waits for ever
    os.write(write, repr(training.next_step()).encode())
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert os.read(read, 1000).decode() == repr(training.next_step())
print("passed")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked")
def test_a_process_that_is_forked_trains_as_well() -> None:
    """It has no threads but the one that forked."""
    path = os.pathsep.join(sys.path)  # for conftest
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (result.stdout, result.stderr) == ("passed\n", "")


def test_a_model_that_was_loaded_can_be_trained_and_its_file_stays(tmp_path: Path) -> None:
    numpy_gpt2.save(with_vocabulary(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = numpy_gpt2.load(tmp_path)
    training = Training(model, encoded(model, TEXT), Options(**SMALL), 2)
    losses(training, 3)
    assert (model.params.wte != with_vocabulary().params.wte).any()
    assert (tmp_path / "model.safetensors").read_bytes() == before
