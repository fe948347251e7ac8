"""Prompts from outside become rows, each of which draws from a random stream of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, random_model

from numpy_gpt2.decoding.options import check_options
from numpy_gpt2.decoding.prompts import as_prompts, encode_prompt, require, start_rows
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.text.padding import pad_right


class TestStartRows:
    @staticmethod
    def draws(n_rows: int, seed: Any = 5) -> list[list[int]]:
        model = random_model(SHAPES[1])
        rows = start_rows([[3]] * n_rows, 1, check_options(max_new_tokens=12, seed=seed), model.hparams, None)
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
        rows = start_rows([[3], [4]], 3, check_options(max_new_tokens=12, seed=5), model.hparams, None)
        assert [row.tokens for row in rows] == [[3]] * 3 + [[4]] * 3
        assert finish(rows, model)[:3] == self.draws(3)

    def test_the_prompt_at_fault_is_named(self) -> None:
        with pytest.raises(ValueError, match="^prompt 2: token id 11 is outside the vocabulary"):
            start_rows([[3], [11]], 1, check_options(), SHAPES[1], None)


class TestEncodePrompt:
    def test_text_and_ids(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        ids = tiny.tokenizer.encode("The king")
        for prompt in ("The king", ids, tuple(ids), np.array(ids, np.uint16)):
            assert encode_prompt(prompt, tiny.hparams, tiny.tokenizer, slide=False) == ids

    @pytest.mark.parametrize("empty", ["", [], (), np.array([], int)], ids=repr)
    def test_an_empty_prompt_begins_a_new_text(self, tiny: GPT2, empty: Any) -> None:
        assert encode_prompt(empty, tiny.hparams, tiny.tokenizer, slide=False) == [4095]
        with pytest.raises(ValueError, match="no token ids|has no vocabulary"):
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
    """Whether it came from a folder or not: no file is missing where there is no folder."""
    with pytest.raises(ValueError, match=r"^this model has no vocabulary and knows only ids: give token ids \(the "):
        require(None)
    with pytest.raises(ValueError, match="knows only ids: a stop string is text "):
        start_rows([[1]], 1, check_options(stop="x"), SHAPES[0], None)
