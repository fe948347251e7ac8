"""`merge_long` against `merge`, the plain form of byte-pair encoding."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.text.merging import LONG, merge_long
from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, END_OF_TEXT, Tokenizer, byte_spelling, merge

GPT2 = Tokenizer.gpt2()
TINY = Tokenizer.load(model_folder("tiny"))

texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("'stremvld  \n\t\r\xa0\u3000aAéé01٣.!,漢🙂"),
    ),
    max_size=60,
)


class CountingDict(dict[str, int]):
    """Counts the look-ups."""

    asked = 0

    def get(self, *args: Any) -> Any:
        self.asked += 1
        return super().get(*args)


@pytest.mark.parametrize("alphabet", ["a", "!", "abcdefghijklmnopqrstuvwxyz", "th ein"])
def test_the_work_grows_in_proportion_to_the_length_of_a_word(alphabet: str) -> None:
    """For each look-up, the heap adds log n; so the number of look-ups must not grow faster than n."""
    for n in (1000, 10_000):
        ranks = CountingDict(GPT2.ranks)
        assert merge_long("".join(random.Random(0).choices(alphabet, k=n)), ranks)
        assert ranks.asked <= 5 * n


@given(st.one_of(texts, st.text("ab", max_size=60), st.text("the in", max_size=60)))
def test_both_ways_to_merge_agree(word: str) -> None:
    characters = byte_spelling(word)
    for tokenizer in GPT2, TINY:
        assert merge(characters, tokenizer.ranks) == merge_long(characters, tokenizer.ranks)


def ranks_of(merges: list[str]) -> dict[str, int]:
    return {pair: rank for rank, pair in enumerate(merges)}


def tokenizer_of(merges: list[str]) -> Tokenizer:
    """A tokenizer with these merges."""
    made = {pair.replace(" ", "") for pair in merges}
    tokens = [*BYTE_TO_CHARACTER.values(), *sorted(made), END_OF_TEXT]
    return Tokenizer({token: id for id, token in enumerate(tokens)}, merges)


def any_order(seed: int) -> list[str]:
    """Merges in an order that no training would give."""
    tokens = ["a", "b", "c", "ab", "bc", "aa", "aba", "abc", "bb"]
    return random.Random(seed).sample([f"{left} {right}" for left in tokens for right in tokens], 20)


@given(st.text("abc", max_size=60), st.integers(0, 10**6).map(any_order))
@example("bbbb", ["bb b", "b b"])
def test_both_ways_to_merge_agree_whatever_the_order_of_the_merges(word: str, merges: list[str]) -> None:
    """Or `merge_long` gives up; then the tokenizer merges the plain way."""
    expected = merge(word, ranks_of(merges))
    assert merge_long(word, ranks_of(merges)) in (expected, None)
    tokenizer = tokenizer_of(merges)
    assert [tokenizer.decoder[id] for id in tokenizer.encode(word)] == expected


@given(st.text("abc", max_size=60), st.integers(0, 10**6))
def test_merges_in_an_order_of_training_are_always_found(word: str, seed: int) -> None:
    """Each token is made before it is part of another, and by one merge only."""
    rng, tokens = random.Random(seed), ["a", "b", "c"]
    merges: list[str] = []
    while len(merges) < 20:
        left, right = rng.choices(tokens, k=2)
        if left + right not in tokens:
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    assert merge_long(word, ranks_of(merges)) == merge(word, ranks_of(merges))


@pytest.mark.parametrize(
    ("word", "merges"),
    [
        ("abc", ["ab c", "a b"]),  # a new pair with the right neighbour
        ("cab", ["c ab", "a b"]),  # with the left neighbour
        ("abab", ["ab ab", "a b"]),  # of two new tokens
        ("abab", ["ab a", "a b"]),  # between two places of the same pair
        ("bbbb", ["bb b", "b b"]),
        ("aabc", ["aab c", "a b", "a ab"]),  # after several merges
    ],
)
def test_a_new_pair_of_lower_rank_is_not_for_merge_long(word: str, merges: list[str]) -> None:
    assert merge_long(word, ranks_of(merges)) is None
    tokenizer, long_word = tokenizer_of(merges), word * LONG
    assert merge_long(long_word, ranks_of(merges)) is None
    ids = tokenizer.encode(long_word)
    assert [tokenizer.decoder[id] for id in ids] == merge(long_word, ranks_of(merges))
    assert tokenizer.decode(ids) == long_word


@pytest.mark.parametrize(
    ("word", "merges", "tokens"),
    [
        ("abab", ["ab c", "a b"], ["ab", "ab"]),
        ("cbab", ["c ab", "a b"], ["c", "b", "ab"]),
        ("aacab", ["ab ab", "a b"], ["a", "a", "c", "ab"]),
        ("abc", ["a b", "ab c"], ["abc"]),
        ("abc", [], ["a", "b", "c"]),
        ("a", ["a a"], ["a"]),
        ("", ["a a"], []),
    ],
)
def test_a_pair_that_never_appears_does_no_harm(word: str, merges: list[str], tokens: list[str]) -> None:
    assert merge_long(word, ranks_of(merges)) == merge(word, ranks_of(merges)) == tokens
