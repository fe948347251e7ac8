"""Drafts from the text so far: where they are found, how long they are, and what they cost where nothing repeats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import greedy

from numpy_gpt2.decoding.lookup import LONGEST, N_MATCHING, Lookup, count_matching, repeat_from
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.decoding.speculation import COSTS, MOST
from numpy_gpt2.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent


def draft(tokens: list[int], n_most: int = MOST) -> list[int]:
    return Lookup(n_most).draft(Row(tokens, greedy, 99), 99)


def speed(text: list[int], n_prompt: int) -> float:
    """How many times faster a text would come with lookup than without, by the costs that were measured."""
    lookup, row = Lookup(MOST), Row(text[:n_prompt], greedy, len(text))
    cost = 0.0
    while len(row.tokens) < len(text):
        rest = text[len(row.tokens) :]
        drafted = lookup.draft(row, len(rest) - 1)
        n_right = int(np.cumprod(np.equal(drafted, rest[: len(drafted)])).sum())
        row.tokens += rest[: n_right + 1]
        cost += COSTS[len(drafted)]
    return (len(text) - n_prompt) / cost


@pytest.fixture(scope="module")
def prose() -> list[int]:
    """A text in English, in the tokens of GPT-2."""
    return Tokenizer.gpt2().encode((ROOT / "docs" / "contributing.md").read_text(encoding="utf-8"))[:1500]


def test_a_text_goes_on_as_it_did_before() -> None:
    copied = [*range(100, 150)]
    drafted = draft([*copied, 1, 2, *copied[:20]])
    assert len(drafted) > 3
    assert drafted == [*copied[20:], 1, 2][: len(drafted)]


def test_a_text_that_repeats_itself_is_drafted_beyond_its_end() -> None:
    assert draft([1, 2, 3] * 20) == ([1, 2, 3] * 11)[:MOST]
    assert draft([7] * 40, n_most=5) == [7] * 5


@pytest.mark.parametrize("tokens", [[1], [1, 1], [1, 2], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 2]], ids=str)
def test_nothing_is_drafted_where_nothing_matches(tokens: list[int]) -> None:
    assert draft(tokens) == []


def test_guesses_are_those_of_a_search_through_the_whole_text() -> None:
    """A source is kept while it is right. Then the last place is taken where the last tokens came before."""
    rng = np.random.default_rng(0)
    for n_vocab in (2, 3, 6):
        lookup, row, source = Lookup(MOST), Row([0], greedy, 999), 0
        for token in rng.integers(n_vocab, size=300).tolist():
            lookup.draft(row, 1)
            kept = source and row.tokens[source] == token
            row.tokens.append(token)
            last, n = row.tokens[-N_MATCHING:], len(row.tokens)
            found = [end for end in range(N_MATCHING, n) if row.tokens[end - N_MATCHING : end] == last]
            source = source + 1 if kept else max(found, default=0)
            lookup.draft(row, 1)
            assert lookup._source == source
            if lookup._n_matched:
                assert lookup._n_matched <= count_matching(row.tokens, source, n) <= LONGEST


def test_each_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(Lookup, "_read", lambda self, tokens, i: read.append(i))
    lookup, row = Lookup(MOST), Row([1, 2, 3], greedy, 99)
    lookup.draft(row, 9)
    row.tokens += [4, 5]
    lookup.draft(row, 9)
    lookup.draft(row, 9)
    assert read == [0, 1, 2, 3, 4]


def test_prose_does_not_become_slower(prose: list[int]) -> None:
    assert speed(prose, n_prompt=100) > 0.99


def test_tokens_without_order_do_not_become_slower() -> None:
    for n_vocab in (2, 10, 100):
        assert speed(np.random.default_rng(0).integers(n_vocab, size=1000).tolist(), n_prompt=1) > 0.97


def test_a_copy_comes_much_faster_even_with_changes(prose: list[int]) -> None:
    rng = np.random.default_rng(0)
    changed = [token if rng.random() > 0.04 else int(rng.integers(50257)) for token in prose[:400]]
    assert speed(prose[:400] * 2, n_prompt=400) > 4
    assert speed(prose[:400] + changed, n_prompt=400) > 2


@pytest.mark.parametrize("period", [1, 4, 30])
def test_a_text_that_repeats_itself_comes_much_faster(prose: list[int], period: int) -> None:
    assert speed(prose[:100] + (prose[:period] * 400)[:400], n_prompt=100) > 3


def test_small_parts() -> None:
    assert count_matching([1, 2], 0, 2) == 0
    assert count_matching([3] * 50, 20, 50) == LONGEST
    assert repeat_from([1, 2, 3, 4], 1, 2) == [2, 3]
    assert repeat_from([1, 2, 3, 4], 3, 3) == [4, 4, 4]
