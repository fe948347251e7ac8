"""The options of generation: which there are, what they accept, and what they amount to."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SHAPES, random_model

from numpy_gpt2.decoding.options import Options, check_options, stop_strings
from numpy_gpt2.sampling import OPTIONS


def test_those_of_the_loop_are_told_from_those_of_sampling() -> None:
    options = check_options(max_new_tokens=3, top_k=5, slide=True, min_p=0.1)
    sampling = {option.name: option.default for option in OPTIONS} | {"top_k": 5, "min_p": 0.1}
    others: dict[str, Any] = {"slide": True, "return_full_text": False, "sampling": sampling}
    assert options == Options(3, None, (), None, prompt_lookup_num_tokens=None, assistant_model=None, **others)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("temprature", "temperature"), ("max_tokens", "max_new_tokens"), ("top_pp", "top_p"), ("stopp", "stop")],
)
def test_an_unknown_option_is_named_with_a_suggestion(given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"^'{given}' is not an option here; did you mean '{meant}'\\?$"):
        check_options(**{given: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["x", "compile_config"])
def test_an_unknown_option_that_is_like_no_other(given: str) -> None:
    with pytest.raises(TypeError, match=f"^'{given}' is not an option here$"):
        check_options(**{given: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "n_prompt", "n"),
    [
        ({}, 9, 64),
        ({"max_new_tokens": 0}, 9, 0),
        ({"max_new_tokens": 5}, 9, 5),
        ({"max_length": 12}, 9, 3),
        ({"max_length": 9}, 9, 0),
    ],
    ids=str,
)
def test_number_of_new_tokens(options: dict[str, Any], n_prompt: int, n: int) -> None:
    assert check_options(**options).count_new_tokens(n_prompt) == n


def test_a_prompt_longer_than_max_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt has 9 tokens, more than max_length, 8"):
        check_options(max_length=8).count_new_tokens(9)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "8"])
def test_the_number_of_drafted_tokens_is_at_least_1(n: Any) -> None:
    assert check_options(prompt_lookup_num_tokens=8).prompt_lookup_num_tokens == 8
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens must be a whole number, 1 or more"):
        check_options(prompt_lookup_num_tokens=n)


def test_an_assistant_is_a_model_and_excludes_lookup() -> None:
    model = random_model(SHAPES[0])
    assert check_options(assistant_model=model).assistant_model is model
    with pytest.raises(ValueError, match="assistant_model must be a model, such as load.. returns, not of type str"):
        check_options(assistant_model="distilgpt2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens or assistant_model, but not both"):
        check_options(assistant_model=model, prompt_lookup_num_tokens=3)


@pytest.mark.parametrize(
    ("stop", "strings"),
    [(None, ()), ("ab", ("ab",)), (["a", "bc"], ("a", "bc")), (iter(["a"]), ("a",)), ([], ())],
    ids=repr,
)
def test_stop_strings(stop: Any, strings: tuple[str, ...]) -> None:
    assert stop_strings(stop) == strings
