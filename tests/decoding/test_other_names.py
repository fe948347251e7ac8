"""Options of other libraries: each that transformers knows is an option here, or answered without a wrong guess."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

import numpy_gpt2
from numpy_gpt2.decoding.options import check_options
from numpy_gpt2.decoding.other_names import ANSWER_TO, ANSWERS
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import HParams
from numpy_gpt2.sampling import OPTIONS
from numpy_gpt2.tokenizer import Tokenizer

HERE = {*inspect.signature(GPT2.generate).parameters} | {option.name for option in OPTIONS}


def names_in_transformers() -> set[str]:
    """The attributes of a `GenerationConfig`, and the arguments of `generate` and of the model itself."""
    transformers = pytest.importorskip("transformers")
    names = {name for name in vars(transformers.GenerationConfig()) if not name.startswith("_")}
    for method in (transformers.GPT2LMHeadModel.generate, transformers.GPT2LMHeadModel.forward):
        names |= {*inspect.signature(method).parameters}
    return names


def message(name: str) -> str:
    """What is said about an option of this name."""
    with pytest.raises(TypeError) as error:
        check_options(**{name: 1})  # type: ignore[arg-type]
    return str(error.value)


def test_no_option_of_transformers_gets_a_wrong_guess() -> None:
    names = names_in_transformers() - HERE
    assert len(names) > 60
    for name in sorted(names):
        assert message(name).startswith(f"'{name}' is not an option here")
        assert "did you mean" not in message(name)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("do_sample", "temperature=0"),
        ("eos_token_id", "model.special_ids"),
        ("num_beams", "there is no beam search"),
        ("stop_strings", "use stop"),
        ("streamer", "model.stream"),
        ("attention_mask", "Batch"),
        ("output_scores", "return_details"),
        ("num_assistant_tokens", "depends on what was accepted"),
    ],
)
def test_what_users_of_transformers_bring(name: str, part: str) -> None:
    assert part in message(name)
    model = numpy_gpt2.init(HParams(n_vocab=9, n_ctx=4, n_embd=4, n_head=1, n_layer=1))
    methods: list[Callable[..., object]] = [model.generate, model.stream]
    for method in methods:
        with pytest.raises(TypeError, match=f"^'{name}' is not an option here: .*{re.escape(part)}"):
            method([1], **{name: 1})


def test_no_answer_is_about_an_option_that_is_here() -> None:
    assert not ANSWER_TO.keys() & HERE
    assert len(ANSWER_TO) == sum(len(names.split()) for names in ANSWERS.values())


def test_what_the_answers_name_is_here() -> None:
    model, tokenizer = numpy_gpt2.load("tiny"), Tokenizer.gpt2()
    for answer in ANSWERS:
        for root, name in re.findall(r"\b(model|tokenizer|numpy_gpt2)\.(\w+)", answer):
            assert hasattr({"model": model, "tokenizer": tokenizer, "numpy_gpt2": numpy_gpt2}[root], name)
        for name in re.findall(r"\b[a-z]+_[a-z_]+\b", re.sub(r"\b(model|tokenizer|numpy_gpt2)\.\w+", "", answer)):
            assert name in HERE
