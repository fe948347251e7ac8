"""Prompts from outside become rows, each of which draws from a random stream of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, random_model

from numpy_gpt2.decoding.options import Options, check_options, count_new_tokens, stop_strings
from numpy_gpt2.decoding.prompts import as_prompts, encode_prompt, require, start_rows
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.sampling import OPTIONS
from numpy_gpt2.text.padding import pad_right


class TestStartRows:
    @staticmethod
    def draws(n_rows: int, seed: Any = 5) -> list[list[int]]:
        model = random_model(SHAPES[1])
        rows = start_rows([[3]] * n_rows, 1, check_options(Options(12, seed=seed)), model.hparams, None)
        return finish(rows, model)

    def test_a_row_draws_the_same_numbers_whatever_the_batch_size(self) -> None:
        five = self.draws(5)
        assert self.draws(1) == five[:1]
        assert self.draws(3) == five[:3]
        assert len({*map(tuple, five)}) == 5

    def test_a_seed_sequence_continues(self) -> None:
        seed = np.random.SeedSequence(5)
        assert self.draws(2, seed) + self.draws(3, seed) == self.draws(5)

    def test_rows_of_one_prompt_follow_one_another(self) -> None:
        model = random_model(SHAPES[1])
        rows = start_rows([[3], [4]], 3, check_options(Options(12, seed=5)), model.hparams, None)
        assert [row.tokens for row in rows] == [[3]] * 3 + [[4]] * 3
        assert finish(rows, model)[:3] == self.draws(3)

    def test_the_prompt_at_fault_is_named(self) -> None:
        with pytest.raises(ValueError, match="^prompt 2: token id 11 is outside the vocabulary"):
            start_rows([[3], [11]], 1, Options(), SHAPES[1], None)


class TestEncodePrompt:
    def test_text_and_ids(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        ids = tiny.tokenizer.encode("The king")
        for prompt in ("The king", ids, tuple(ids), np.array(ids, np.uint16)):
            assert encode_prompt(prompt, tiny.hparams, tiny.tokenizer, slide=False) == ids

    @pytest.mark.parametrize("empty", ["", [], (), np.array([], int)], ids=repr)
    def test_an_empty_prompt_begins_a_new_text(self, tiny: GPT2, empty: Any) -> None:
        assert encode_prompt(empty, tiny.hparams, tiny.tokenizer, slide=False) == [4095]
        with pytest.raises(ValueError, match="no token ids|without a vocabulary"):
            encode_prompt(empty, SHAPES[0], None, slide=False)

    def test_only_a_row_that_slides_may_be_longer_than_the_context(self) -> None:
        prompt = [1] * 8
        assert encode_prompt(prompt, SHAPES[0], None, slide=True) == prompt
        with pytest.raises(ValueError, match=r"8 tokens are too many .*; slide \(--slide\) would read only"):
            encode_prompt(prompt, SHAPES[0], None, slide=False)


@pytest.mark.parametrize(
    ("prompt", "prompts", "several"),
    [
        ("text", ["text"], False),
        ("", [""], False),
        ([1, 2], [[1, 2]], False),
        (iter([1, 2]), [[1, 2]], False),
        (7, [7], False),
        (b"bytes", [b"bytes"], False),
        (["text", [1, 2]], ["text", [1, 2]], True),
        (("text",), ["text"], True),
        ([[1, 2]], [[1, 2]], True),
        ([], [], True),
    ],
    ids=repr,
)
def test_one_prompt_or_several(prompt: Any, prompts: list[Any], several: bool) -> None:
    assert as_prompts(prompt) == (prompts, several)


def test_the_padding_of_a_batch_does_not_count() -> None:
    prompts, several = as_prompts(pad_right([[1, 2, 3], [4]], pad=0))
    assert [prompt.tolist() for prompt in prompts] == [[1, 2, 3], [4]]
    assert several


def test_a_model_without_a_vocabulary_says_so() -> None:
    with pytest.raises(ValueError, match=r"without a vocabulary \(tokenizer.json, or vocab.json and merges.txt\)"):
        require(None)


class TestOptions:
    def test_those_of_a_method_are_told_from_those_of_sampling(self) -> None:
        options = Options.of("generate", max_new_tokens=3, top_k=5, slide=True, min_p=0.1)
        assert options == Options(max_new_tokens=3, slide=True, sampling={"top_k": 5, "min_p": 0.1})

    def test_an_unknown_one_is_named(self) -> None:
        complaint = r"^generate\(\) got an unexpected keyword argument 'temprature'; did you mean 'temperature'\?$"
        with pytest.raises(TypeError, match=complaint):
            Options.of("generate", temprature=1)
        with pytest.raises(TypeError, match=r"^stream\(\) got an unexpected keyword argument 'sampling'$"):
            Options.of("stream", sampling={})

    def test_sampling_options_that_are_not_given_have_their_defaults(self) -> None:
        checked = check_options(Options(sampling={"top_p": 0.5})).sampling
        expected = {option.name: option.default for option in OPTIONS} | {"top_p": 0.5}
        assert checked == expected

    @pytest.mark.parametrize(
        ("options", "n_prompt", "n"),
        [
            (Options(), 9, 64),
            (Options(max_new_tokens=0), 9, 0),
            (Options(max_new_tokens=5), 9, 5),
            (Options(max_length=12), 9, 3),
            (Options(max_length=9), 9, 0),
        ],
        ids=str,
    )
    def test_number_of_new_tokens(self, options: Options, n_prompt: int, n: int) -> None:
        assert count_new_tokens(options, n_prompt) == n

    def test_a_prompt_longer_than_max_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the prompt has 9 tokens, more than max_length, 8"):
            count_new_tokens(Options(max_length=8), 9)

    @pytest.mark.parametrize(
        ("stop", "strings"),
        [(None, ()), ("ab", ("ab",)), (["a", "bc"], ("a", "bc")), (iter(["a"]), ("a",)), ([], ())],
        ids=repr,
    )
    def test_stop_strings(self, stop: Any, strings: tuple[str, ...]) -> None:
        assert stop_strings(stop) == strings
