"""Each step of sampling against transformers' logits processors, and draws against their distribution."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_model

from numpy_gpt2 import sampling
from numpy_gpt2.layers import softmax
from numpy_gpt2.params import Array
from numpy_gpt2.sampling import (
    Option,
    adjust,
    check_sampling,
    draw,
    keep_min_p,
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

# A value of each option that has an effect. Every option has one here, so that all of them are compared.
EFFECTIVE: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "temperature": 1.5,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.25,
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
        # Which of several tied tokens stay depends on PyTorch's sort, so compare the logits that stay, not the tokens.
        np.testing.assert_array_equal(np.sort(ours, axis=-1), np.sort(theirs, axis=-1))

    @pytest.mark.parametrize("p", [1e-9, 0.02, 0.3, 0.9, 1.0])
    def test_min_p(self, logits: Array, p: float) -> None:
        ours = keep_min_p(logits, p)
        assert ours.dtype == logits.dtype
        np.testing.assert_array_equal(ours, by_hugging_face("MinPLogitsWarper", logits, p))


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
        {"temperature": 1.2, "min_p": 0.15},
        {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "repetition_penalty": 1.4},
        {"temperature": 1.3, "top_k": 10, "top_p": 0.95, "min_p": 0.06, "repetition_penalty": 1.4},
    ],
    ids=str,
)
def test_draws_have_the_probabilities_that_hugging_face_would_draw_with(options: dict[str, Any]) -> None:
    """A chi-square test over many draws, at a level of significance of 0.1 %."""
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
        ("min_p", transformers.MinPLogitsWarper),
    ):
        if name in options:
            processed = processor(options[name])(torch.tensor([ids]), processed)
    expected = n * torch.softmax(processed[0], dim=-1).numpy()
    rng = np.random.default_rng(7)
    observed = np.bincount([next_token(logits, rng, ids=ids, **options) for _ in range(n)], minlength=12)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    # Exceeded once in a thousand, with one degree of freedom less than there are possible tokens.
    limits = {4: 16.3, 5: 18.5, 6: 20.5, 7: 22.5, 8: 24.3, 9: 26.1, 10: 27.9, 11: 29.6, 12: 31.3}
    assert chi_square < limits[int(possible.sum())]


@pytest.mark.parametrize("others", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
@pytest.mark.parametrize(
    "scaling",
    [{"temperature": 1e-4}, {"repetition_penalty": 1e-4}, {"temperature": 1e-4, "repetition_penalty": 1e-4}],
    ids=str,
)
def test_scaling_beyond_float32_still_draws_the_likeliest(others: Any, scaling: Any) -> None:
    logits = np.array([-3e38, 1e38, 2e38, 3e38, 0.0], np.float32)
    for seed in range(20):
        assert next_token(logits, np.random.default_rng(seed), [0, 1, 2, 3, 4], **scaling, **others) == 3
    assert next_token(logits, np.random.default_rng(0), [4], temperature=0, repetition_penalty=1e4) == 3


@pytest.mark.parametrize("logits", [[1e305, 2e305, 0.0], [-1e305, -2e305, -3e305]], ids=str)
def test_scaling_beyond_float64_is_refused(logits: list[float]) -> None:
    with pytest.raises(ValueError, match="the logits overflow when scaled"):
        next_token(np.array(logits), np.random.default_rng(0), temperature=1e-4)


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
    np.testing.assert_array_equal(adjust(logits, temperature=0) > -math.inf, logits == logits.max())


def test_temperature_0_takes_the_first_of_tied_tokens() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0, 3.0])
    for others in ({}, {"top_k": 4}, {"top_p": 0.1}, {"min_p": 1.0}):
        np.testing.assert_array_equal(adjust(logits, temperature=0, **others), [-math.inf, 3.0, -math.inf, 3.0, 3.0])
        for seed in range(20):
            assert next_token(logits, np.random.default_rng(seed), temperature=0, **others) == 1


def test_top_k_top_p_and_min_p_limit_what_is_drawn() -> None:
    rng = np.random.default_rng(5)
    logits = np.log(np.array([0.1, 0.4, 0.3, 0.15, 0.05]))
    assert {next_token(logits, rng, top_k=2) for _ in range(200)} == {1, 2}
    assert {next_token(logits, rng, top_p=0.75) for _ in range(200)} == {1, 2, 3}
    assert {next_token(logits, rng, min_p=0.3) for _ in range(200)} == {1, 2, 3}
    assert {next_token(logits, rng) for _ in range(500)} == {0, 1, 2, 3, 4}
    # top_k comes first: of the two tokens that it leaves, the first has 4/7 of the probability
    assert {next_token(logits, rng, top_k=2, top_p=0.5) for _ in range(200)} == {1}


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_extreme_temperatures(temperature: float) -> None:
    logits = np.array([300.0, 299.0, -300.0], np.float32)
    drawn = {next_token(logits, np.random.default_rng(seed), temperature=temperature) for seed in range(100)}
    assert drawn == ({0} if temperature < 1 else {0, 1, 2})


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(temperature: float, value: float) -> None:
    with pytest.raises(ValueError, match="logits are not finite numbers"):
        next_token(np.array([1.0, value, 2.0]), np.random.default_rng(0), temperature=temperature)


def test_numbers_of_numpy_become_numbers_of_python() -> None:
    numbers: dict[str, Any] = {"temperature": np.float32(0.5), "top_k": np.int64(5), "top_p": np.float64(0.5)}
    checked = check_sampling(**numbers)
    assert checked == check_sampling() | {"temperature": 0.5, "top_k": 5, "top_p": 0.5}
    assert {type(value) for value in checked.values()} == {int, float}


def test_defaults_and_the_values_that_change_nothing() -> None:
    promised = {
        "repetition_penalty": (1, 1),
        "temperature": (1, 1),
        "top_k": (40, 0),
        "top_p": (1, 1),
        "min_p": (0, 0),
    }
    assert promised.items() <= {option.name: (option.default, option.off) for option in sampling.OPTIONS}.items()


@pytest.mark.parametrize("option", sampling.OPTIONS, ids=lambda option: option.name)
class TestEveryOption:
    @pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS.keys())
    def test_off_changes_nothing(self, option: Option, logits: Array) -> None:
        for row in logits:
            before = row.copy()
            for options in ({}, {option.name: option.off}):
                adjusted = adjust(row, [0], **options)
                assert adjusted.dtype == logits.dtype
                np.testing.assert_array_equal(adjusted, before)

    def test_another_value_changes_something(self, option: Option) -> None:
        before = np.random.default_rng(0).normal(0, 2, 50)
        logits = before.copy()
        assert not np.array_equal(adjust(logits, [0], **{option.name: EFFECTIVE[option.name]}), before)
        np.testing.assert_array_equal(logits, before)

    def test_default_and_off_are_accepted(self, option: Option) -> None:
        for value in (option.default, option.off):
            checked = check_sampling(**{option.name: value})
            assert checked[option.name] == value
            assert type(checked[option.name]) is option.type
        assert check_sampling()[option.name] == option.default
        assert list(check_sampling()) == [each.name for each in sampling.OPTIONS]

    @pytest.mark.parametrize("value", ["3", None, [1], 1j])
    def test_what_is_not_a_number_is_refused(self, option: Option, value: Any) -> None:
        with pytest.raises(ValueError, match=f"^{option.name} must be a number, not {re.escape(repr(value))}$"):
            check_sampling(**{option.name: value})


@pytest.mark.parametrize(
    "options",
    [
        EFFECTIVE,
        {"temperature": 0.4, "top_k": 3, "top_p": 0.6},
        {"temperature": 3.0, "top_p": 0.9, "min_p": 0.3},
        {"temperature": 0.5, "min_p": 0.2, "repetition_penalty": 3.0},
        {"top_k": 4, "top_p": 0.7, "repetition_penalty": 2.0},
    ],
    ids=str,
)
def test_options_are_applied_in_the_order_of_hugging_face(options: dict[str, Any]) -> None:
    """Against the scores from which transformers' own `generate` draws. The first options are all that there are."""
    torch = pytest.importorskip("torch")
    hparams = SHAPES[1]._replace(n_vocab=50)
    peer = in_pytorch(random_model(hparams))
    peer.generation_config.eos_token_id = None
    torch.manual_seed(0)
    made = peer.generate(
        torch.tensor([[1, 2, 3]]),
        attention_mask=torch.ones((1, 3), dtype=torch.int64),
        pad_token_id=0,
        max_new_tokens=30,
        do_sample=True,
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
        **{"top_k": 0, **options},
    )
    for step, (logits, scores) in enumerate(zip(made.logits, made.scores, strict=True)):
        ids = made.sequences[0, : 3 + step].tolist()
        np.testing.assert_allclose(adjust(logits[0].numpy(), ids, **options), scores[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("penalize_repetition", {"repetition_penalty": 1.1}),
        ("scale_by_temperature", {"temperature": 1.1}),
        ("keep_top_k", {"top_k": 9}),
        ("keep_top_p", {"top_p": 0.999}),
        ("keep_min_p", {"min_p": 1e-9}),
    ],
)
def test_a_replaced_function_takes_effect(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = random_model(SHAPES[1]), np.random.default_rng(0)
    only_7 = np.where(np.arange(11) == 7, 0.0, -math.inf)
    monkeypatch.setattr(sampling, name, lambda logits, *args: only_7)
    assert {next_token(np.zeros(11), rng, ids=[1], **options) for _ in range(20)} == {7}
    assert model.generate([1, 2], 5, return_details=True, **{"top_k": 0, **options}).ids == [7] * 5
    assert {next_token(np.zeros(11), rng, ids=[1]) for _ in range(200)} == {*range(11)}  # where the option is off


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
        ({"top_k": "3"}, "top_k must be a number, not '3'"),
        ({"min_p": -0.1}, "min_p must be 0 to 1, not -0.1"),
        ({"min_p": 1.01}, "min_p must be 0 to 1"),
        ({"min_p": math.nan}, "min_p must be 0 to 1"),
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


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="'temprature' is not an option here; did you mean 'temperature'"):
        check_sampling(temprature=0)
    with pytest.raises(TypeError, match="'temprature' is not an option here; did you mean 'temperature'"):
        next_token(np.zeros(3), np.random.default_rng(0), temprature=0)
