"""The gradient of a batch, divided over threads, against that of the whole batch at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model
from in_torch import assert_gradients_near, loss_and_gradients

import numpy_gpt2
from numpy_gpt2.evaluation import scoring
from numpy_gpt2.evaluation.scoring import IGNORED
from numpy_gpt2.params import Array, Params, named_arrays
from numpy_gpt2.training import forward, parallel
from numpy_gpt2.training.forward import NO_DROPOUT, Dropout
from numpy_gpt2.training.gradients import Wanted, gradients, is_wanted
from numpy_gpt2.training.parallel import batch_gradients

HPARAMS = SHAPES[1]
N_HEAD = HPARAMS.n_head
PARAMS = random_model(HPARAMS).params


def batch(kind: str) -> tuple[Array, Array]:
    """Ids and targets of five texts."""
    ids, targets = random_ids(HPARAMS, 5, HPARAMS.n_ctx), random_ids(HPARAMS, 5, HPARAMS.n_ctx, seed=1)
    begin, end = {
        "whole": ([0, 0, 0, 0, 0], [40, 40, 40, 40, 40]),
        "padded on the right": ([0, 0, 0, 0, 0], [40, 7, 1, 23, 7]),
        "texts without a target": ([0, 0, 0, 0, 0], [0, 9, 0, 40, 0]),
        "the first tokens do not count": ([3, 39, 0, 12, 8], [40, 40, 40, 15, 8]),
        "one target in all": ([0, 0, 0, 4, 0], [0, 0, 0, 5, 0]),
    }[kind]
    places = np.arange(HPARAMS.n_ctx)
    counts = np.logical_and(places >= np.array(begin)[:, None], places < np.array(end)[:, None])
    return ids, np.where(counts, targets, IGNORED)


KINDS = ["whole", "padded on the right", "texts without a target", "the first tokens do not count", "one target in all"]


def named(grads: Params) -> dict[str, Array]:
    return dict(named_arrays(grads))


def assert_identical(some: tuple[float, Params], others: tuple[float, Params]) -> None:
    assert some[0] == others[0]
    for (name, array), other in zip(named_arrays(some[1]), named(others[1]).values(), strict=True):
        np.testing.assert_array_equal(array, other, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
class TestEveryBatch:
    @pytest.mark.parametrize("n_threads", [1, 2, 3, 9])
    def test_equals_the_gradient_of_all_texts_at_once(self, kind: str, n_threads: int) -> None:
        loss, grads = batch_gradients(*batch(kind), PARAMS, N_HEAD, n_threads)
        expected_loss, expected = gradients(*batch(kind), PARAMS, N_HEAD)
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        assert_gradients_near(grads, named(expected), 1e-12)

    def test_equals_pytorch(self, kind: str) -> None:
        loss, grads = batch_gradients(*batch(kind), PARAMS, N_HEAD, 2)
        expected_loss, expected = loss_and_gradients(in_pytorch(random_model(HPARAMS)), *batch(kind))
        assert loss == pytest.approx(expected_loss, rel=1e-12)
        assert_gradients_near(grads, expected)

    @pytest.mark.parametrize("n_threads", [1, 2, 3])
    @pytest.mark.parametrize("drop", [NO_DROPOUT, Dropout(0.2)], ids=["no dropout", "dropout"])
    def test_the_same_number_of_threads_gives_the_same_numbers(self, kind: str, n_threads: int, drop: Dropout) -> None:
        params = random_model(HPARAMS, "float32").params
        ids, targets = batch(kind)
        first = batch_gradients(ids, targets, params, N_HEAD, n_threads, drop)
        for _ in range(3):
            assert_identical(batch_gradients(ids, targets, params, N_HEAD, n_threads, drop), first)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_each_text_drops_numbers_of_its_own_whichever_thread_has_it(n_threads: int) -> None:
    ids, targets = batch("whole")
    ids[1:], targets[1:] = ids[0], targets[0]
    drop = Dropout(0.3, (7,))
    loss, grads = batch_gradients(ids, targets, PARAMS, N_HEAD, n_threads, drop)
    each = [gradients(ids[i : i + 1], targets[i : i + 1], PARAMS, N_HEAD, drop=drop.within(i)) for i in range(5)]
    assert len({loss_of_text for loss_of_text, _ in each}) == 5
    assert loss == pytest.approx(np.mean([loss_of_text for loss_of_text, _ in each]), rel=1e-12)
    mean = {name: np.mean([named(of_text)[name] for _, of_text in each], axis=0) for name in named(grads)}
    assert_gradients_near(grads, mean, 1e-12)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{"wanted": Wanted(2, embeddings=False)}, {"wanted": Wanted(embeddings=False)}, {"sparing": True}],
    ids=str,
)
def test_options_are_those_of_gradients(n_threads: int, options: dict[str, Any]) -> None:
    loss, grads = batch_gradients(*batch("padded on the right"), PARAMS, N_HEAD, n_threads, **options)
    expected_loss, expected = gradients(*batch("padded on the right"), PARAMS, N_HEAD, **options)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert_gradients_near(grads, named(expected), 1e-12)
    for name, array in named(expected).items():
        assert is_wanted(named(grads)[name]) == is_wanted(array) == array.flags.writeable


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_sparing_computes_each_block_a_second_time(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given, original, calls = (*batch("whole"), PARAMS, N_HEAD, n_threads), forward.block, []
    batch_gradients(*given)  # also compares what is computed, the first time

    def counted(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(forward, "block", counted)
    batch_gradients(*given)
    assert len(calls) == 5 * HPARAMS.n_layer
    calls.clear()
    batch_gradients(*given, sparing=True)
    assert len(calls) == 2 * 5 * HPARAMS.n_layer


def test_nothing_given_is_changed_and_float32_stays_float32() -> None:
    params = random_model(HPARAMS, "float32").params
    ids, targets = batch("padded on the right")
    before = [array.copy() for array in (ids, targets, *named(params).values())]
    _, grads = batch_gradients(ids, targets, params, N_HEAD, 2)
    for array, copied in zip((ids, targets, *named(params).values()), before, strict=True):
        np.testing.assert_array_equal(array, copied)
    assert {array.dtype for array in named(grads).values()} == {np.dtype("float32")}


@pytest.mark.parametrize("parts", [[1, 4], [2, 2, 1], [1, 1, 1, 1, 1]], ids=str)
def test_batches_accumulated_equal_one_batch_of_all(parts: list[int]) -> None:
    """Each divided by the targets of all."""
    ids, targets = batch("padded on the right")
    n_targets = int((targets != IGNORED).sum())
    expected_loss, expected = gradients(ids, targets, PARAMS, N_HEAD)
    begins = np.cumsum([0, *parts])
    losses, total = 0.0, None
    for begin, n in zip(begins, parts, strict=False):
        at = np.s_[begin : begin + n]
        loss, total = gradients(ids[at], targets[at], PARAMS, N_HEAD, n_targets, total=total)
        losses += loss
    assert total is not None
    assert losses == pytest.approx(expected_loss, rel=1e-12)
    assert_gradients_near(total, named(expected), 1e-12)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_without_any_target_there_is_nothing_to_learn(n_threads: int) -> None:
    ids, targets = batch("whole")
    with pytest.raises(ValueError, match="^there is nothing to learn"):
        batch_gradients(ids, np.full_like(targets, IGNORED), PARAMS, N_HEAD, n_threads)


@pytest.mark.parametrize(
    "n_threads",
    [1, 2],
)
def test_within_a_trace_nothing_is_learned(n_threads: int) -> None:
    with pytest.raises(ValueError, match="^a trace or a patch is active"), numpy_gpt2.trace():
        batch_gradients(*batch("whole"), PARAMS, N_HEAD, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 50])
@pytest.mark.parametrize("n_seq", [2, 40, 41, 42, 130])
def test_bits_per_byte_are_those_of_the_scores(n_seq: int, n_threads: int) -> None:
    gpt2 = random_model(HPARAMS)
    ids = random_ids(HPARAMS, 1, n_seq)[0]
    scores = scoring.join(scoring.score(ids[None], gpt2.params, N_HEAD, stride=HPARAMS.n_ctx // 2))
    assert scores.log_probabilities.shape == (1, n_seq - 1)
    expected = -float(np.sum(scores.log_probabilities)) / math.log(2) / 77
    assert parallel.bits_per_byte(ids, 77, gpt2.params, N_HEAD, n_threads) == pytest.approx(expected, rel=1e-12)
