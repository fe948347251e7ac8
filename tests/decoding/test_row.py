"""One text while it grows: which tokens belong to it, and why it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, greedy, random_model

from numpy_gpt2.decoding.detokenizer import Detokenizer
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.generation import generate_batch
from numpy_gpt2.layers import log_softmax
from numpy_gpt2.params import Array
from numpy_gpt2.tokenizer import Tokenizer


def choosing(tokens: Sequence[int]) -> Any:
    """A function that chooses these tokens, one after another, whatever the logits are."""
    chosen = iter(tokens)
    return lambda logits, ids: next(chosen)


class TestEnds:
    @staticmethod
    def run(choices: Sequence[int], n_prompt: int, max_new_tokens: int) -> tuple[list[int], str | None]:
        model = random_model(SHAPES[0])  # its context holds 7
        row = Row(range(1, n_prompt + 1), choosing(choices), max_new_tokens, eos_token_ids=[299])
        finish([row], model)
        assert len(row.log_probabilities) == len(row.ids)
        return row.ids, row.finish_reason

    def test_length(self) -> None:
        assert self.run([5] * 9, n_prompt=2, max_new_tokens=3) == ([5, 5, 5], "length")

    def test_no_length(self) -> None:
        assert self.run([], n_prompt=2, max_new_tokens=0) == ([], "length")

    def test_end_of_text_is_not_part_of_the_text(self) -> None:
        assert self.run([5, 6, 299], n_prompt=2, max_new_tokens=5) == ([5, 6], "end_of_text")

    def test_context_is_full(self) -> None:
        """The last of its 7 positions predicts one more token."""
        assert self.run([5] * 9, n_prompt=3, max_new_tokens=100) == ([5] * 5, "context")

    def test_prompt_fills_the_context(self) -> None:
        assert self.run([5] * 9, n_prompt=7, max_new_tokens=100) == ([5], "context")
        assert self.run([5] * 9, n_prompt=7, max_new_tokens=1) == ([5], "length")
        assert self.run([], n_prompt=7, max_new_tokens=0) == ([], "length")

    def test_length_and_context_together(self) -> None:
        assert self.run([5] * 9, n_prompt=3, max_new_tokens=5) == ([5] * 5, "length")

    def test_a_row_may_be_ended_from_outside(self) -> None:
        model = random_model(SHAPES[1])
        rows = [Row([1], greedy, 5), Row([2], greedy, 5)]
        for _ in generate_batch(rows, model.params, model.hparams.n_head):
            rows[0].finish_reason = "stop"
        assert [len(row.ids) for row in rows] == [1, 5]

    def test_a_stop_string_ends_the_text_before_it(self) -> None:
        tokenizer = Tokenizer.gpt2()
        one, two, three = (tokenizer.encode(word)[0] for word in (" one", " two", " three"))
        row = Row([0], choosing([one, two, three]), 9, detokenizer=Detokenizer(tokenizer, ["o thr"]))
        while not row.finish_reason:
            row.grow(np.zeros(50257))
        made = row.generation()
        assert (made.text, made.ids, made.finish_reason) == (" one tw", [one, two], "stop")
        assert len(made.log_probabilities) == 2


def test_log_probabilities_are_those_of_the_tokens() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 8))
    row = Row([1, 2], choosing([5, 0, 7]), 3)
    for each in logits:
        row.grow(each)
    assert (row.tokens, row.ids) == ([1, 2, 5, 0, 7], [5, 0, 7])
    np.testing.assert_array_equal(row.log_probabilities, log_softmax(logits)[[0, 1, 2], [5, 0, 7]])


@pytest.mark.parametrize("n_ctx", [1, 2, 7, 8])
def test_a_row_that_slides_keeps_the_newest_half_of_its_context(n_ctx: int) -> None:
    row = Row(range(n_ctx + 1), greedy, 100)
    assert not row.slide_or_end(n_ctx + 1, slide=True)
    assert row.context == row.tokens
    assert row.slide_or_end(n_ctx, slide=True)
    assert row.context == row.tokens[-(n_ctx - n_ctx // 2) :]
    assert len(row.tokens) == n_ctx + 1
    assert not row.slide_or_end(n_ctx, slide=True)
    assert row.finish_reason is None


def test_the_choice_depends_on_the_whole_text() -> None:
    seen: list[list[int]] = []

    def choose(logits: Array, ids: Sequence[int]) -> int:
        seen.append(list(ids))
        return 9

    row = Row([3, 1], choose, 3)
    while not row.finish_reason:
        row.grow(np.zeros(10))
    assert seen == [[3, 1], [3, 1, 9], [3, 1, 9, 9]]
