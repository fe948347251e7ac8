"""Each step of sampling against transformers' logits processors, and the draw against its distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from numpy_gpt2.layers import softmax
from numpy_gpt2.params import Array
from numpy_gpt2.sampling import (
    check_sampling,
    check_whole_number,
    draw,
    keep_top_k,
    keep_top_p,
    next_token,
    penalize_repetition,
    scale_by_temperature,
)

LOGITS = {
    "random": np.random.default_rng(0).normal(0, 3, (4, 1000)),
    "float32": np.random.default_rng(1).normal(0, 3, (4, 1000)).astype(np.float32),
    "GPT-2's vocabulary": np.random.default_rng(2).normal(0, 3, (1, 50257)),
    "all equal": np.zeros((1, 8)),
    "ties": np.array([[2.0, 1.0, 2.0, 0.0, 1.0, 1.0, 2.0, -5.0]]),
    "one allowed": np.array([[-math.inf, -math.inf, 3.0, -math.inf]]),
    "large": np.array([[1e4, 1e4, -1e4, 9999.0]]),
    "one token": np.array([[1.5]]),
}


def by_hugging_face(processor: str, logits: Array, *args: Any) -> Array:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, processor)(*args)(None, torch.tensor(logits)).numpy()


@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS.keys())
class TestAgainstHuggingFace:
    @pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
    def test_temperature(self, logits: Array, temperature: float) -> None:
        ours = scale_by_temperature(logits, temperature)
        assert ours.dtype == logits.dtype
        np.testing.assert_array_equal(ours, by_hugging_face("TemperatureLogitsWarper", logits, temperature))

    @pytest.mark.parametrize("k", [1, 2, 3, 40, 10**6])
    def test_top_k_keeps_ties_with_the_kth(self, logits: Array, k: int) -> None:
        ours = keep_top_k(logits, k)
        assert ours.dtype == logits.dtype
        np.testing.assert_array_equal(ours, by_hugging_face("TopKLogitsWarper", logits, k))

    @pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
    def test_repetition_penalty(self, logits: Array, penalty: float) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        n_vocab = logits.shape[-1]
        ids = np.random.default_rng(0).integers(0, n_vocab, (len(logits), 30))  # some of them several times
        processor = transformers.RepetitionPenaltyLogitsProcessor(penalty)
        theirs = processor(torch.tensor(ids), torch.tensor(logits)).numpy()
        for row, row_ids, expected in zip(logits, ids, theirs, strict=True):
            before = row.copy()
            ours = penalize_repetition(row, row_ids.tolist(), penalty)
            assert ours.dtype == logits.dtype
            np.testing.assert_array_equal(ours, expected)
            np.testing.assert_array_equal(row, before)

    @pytest.mark.parametrize("p", [1e-9, 0.3, 0.55, 0.9, 0.999])
    def test_top_p(self, logits: Array, p: float) -> None:
        ours = keep_top_p(logits, p)
        theirs = by_hugging_face("TopPLogitsWarper", logits, p)
        assert ours.dtype == logits.dtype
        # Which of several tied tokens stay is left to PyTorch's sort: compare how many, and of what likelihood.
        np.testing.assert_array_equal(np.sort(ours, axis=-1), np.sort(theirs, axis=-1))


def test_of_tied_tokens_top_p_keeps_the_lower_ids() -> None:
    np.testing.assert_array_equal(keep_top_p(np.zeros(1000), 0.4995) == 0, [True] * 500 + [False] * 500)


def test_draws_have_the_probabilities_of_softmax() -> None:
    """A chi-square test: with 9 degrees of freedom, 27.9 is exceeded once in a thousand."""
    logits = np.random.default_rng(2).normal(0, 1, 10)
    rng = np.random.default_rng(3)
    n = 20_000
    observed = np.bincount([draw(logits, rng) for _ in range(n)], minlength=10)
    expected = n * softmax(logits)
    assert ((observed - expected) ** 2 / expected).sum() < 27.9


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.6},
        {"temperature": 1.7, "top_k": 6},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "repetition_penalty": 1.4},
    ],
    ids=str,
)
def test_draws_have_the_probabilities_that_hugging_face_would_draw_with(options: dict[str, Any]) -> None:
    """A chi-square test over many draws, at the level of one in a thousand."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    logits = np.random.default_rng(6).normal(0, 1.5, 12)
    ids, n = [2, 7, 7, 11], 20_000
    processed = torch.tensor(logits[None])
    for name, processor in (
        ("repetition_penalty", transformers.RepetitionPenaltyLogitsProcessor),
        ("temperature", transformers.TemperatureLogitsWarper),
        ("top_k", transformers.TopKLogitsWarper),
        ("top_p", transformers.TopPLogitsWarper),
    ):
        if name in options:
            processed = processor(options[name])(torch.tensor([ids]), processed)
    expected = n * torch.softmax(processed[0], dim=-1).numpy()
    rng = np.random.default_rng(7)
    observed = np.bincount([next_token(logits, rng, ids=ids, **options) for _ in range(n)], minlength=12)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    limits = {
        4: 16.3,
        5: 18.5,
        6: 20.5,
        7: 22.5,
        8: 24.3,
        9: 26.1,
        10: 27.9,
        11: 29.6,
        12: 31.3,
    }  # 0.1 %, n - 1 degrees
    assert chi_square < limits[int(possible.sum())]


def test_a_token_that_is_ruled_out_is_never_drawn() -> None:
    class Extremes(np.random.Generator):
        """Draws the ends of the interval [0, 1)."""

        def __init__(self, value: float) -> None:
            super().__init__(np.random.PCG64(0))
            self.value = value

        def random(self) -> float:  # type: ignore[override]
            return self.value

    logits = np.array([-math.inf, 1.0, -math.inf, 2.0, -math.inf], np.float32)
    assert draw(logits, Extremes(0.0)) == 1
    assert draw(logits, Extremes(1 - 2**-53)) == 3


def test_temperature_0_takes_the_likeliest() -> None:
    logits = np.random.default_rng(4).normal(0, 1, 1000)
    assert next_token(logits, np.random.default_rng(0), temperature=0) == logits.argmax()


def test_top_k_and_top_p_limit_what_is_drawn() -> None:
    rng = np.random.default_rng(5)
    logits = np.log(np.array([0.1, 0.4, 0.3, 0.15, 0.05]))
    assert {next_token(logits, rng, top_k=2) for _ in range(200)} == {1, 2}
    assert {next_token(logits, rng, top_p=0.75) for _ in range(200)} == {1, 2, 3}
    assert {next_token(logits, rng) for _ in range(500)} == {0, 1, 2, 3, 4}
    # top_k comes first: of the two that it leaves, the first has 4/7 of the probability
    assert {next_token(logits, rng, top_k=2, top_p=0.5) for _ in range(200)} == {1}


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures_are_no_accident(temperature: float) -> None:
    logits = np.array([300.0, 299.0, -300.0], np.float32)
    drawn = {next_token(logits, np.random.default_rng(seed), temperature) for seed in range(100)}
    assert drawn == ({0} if temperature < 1 else {0, 1, 2})


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(temperature: float, value: float) -> None:
    with pytest.raises(ValueError, match="logits are not finite numbers"):
        next_token(np.array([1.0, value, 2.0]), np.random.default_rng(0), temperature)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"temperature": np.float32(0.5), "top_k": np.int64(5), "top_p": np.float64(0.5)}
    check_sampling(**numbers)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": -1.0}, "temperature must be 0 .* or 0.0001 to 10000, not -1.0"),
        ({"temperature": math.nan}, "temperature must be 0"),
        ({"temperature": math.inf}, "temperature must be 0"),
        ({"temperature": 1e-300}, "temperature must be 0"),
        ({"temperature": 1e300}, "temperature must be 0"),
        ({"top_k": True}, "top_k must be a whole number"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be 1 .none. or 0.0001 to 10000, not 0.0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be"),
        ({"repetition_penalty": math.nan}, "repetition_penalty must be"),
        ({"repetition_penalty": math.inf}, "repetition_penalty must be"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_sampling(**{"temperature": 1.0, "top_k": 0, "top_p": 1.0, **options})


def test_the_penalty_counts_at_temperature_0_as_well() -> None:
    logits, rng = np.array([1.0, 3.0, 2.0]), np.random.default_rng(0)
    assert next_token(logits, rng, temperature=0, repetition_penalty=2.0, ids=[1]) == 2
    assert next_token(logits, rng, temperature=0, repetition_penalty=0.5, ids=[2]) == 2
    assert next_token(logits, rng, temperature=0, repetition_penalty=2.0, ids=[0]) == 1
    assert next_token(-logits, rng, temperature=0, repetition_penalty=2.5, ids=[0]) == 2


@pytest.mark.parametrize("value", [0, 8, 2.0, True, "3", None])
def test_whole_numbers_out_of_range_are_refused(value: Any) -> None:
    check_whole_number("n", 1, at_least=1, at_most=7)
    check_whole_number("n", np.array([7])[0], at_least=1, at_most=7)
    with pytest.raises(ValueError, match="n must be a whole number, 1 to 7, not"):
        check_whole_number("n", value, at_least=1, at_most=7)
