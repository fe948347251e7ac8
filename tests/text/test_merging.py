"""`merge_long` and `merge_block` against `merge`, the plain form of byte-pair encoding."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.text import merging
from numpy_gpt2.text.merging import BLOCK, LONG, merge_block, merge_long
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


@pytest.mark.parametrize("alphabet", ["a", "!", "abcdefghijklmnopqrstuvwxyz", "th ein", "ãģĤ"])
def test_the_work_grows_in_proportion_to_the_length_of_a_word(alphabet: str) -> None:
    """For each look-up, the heap adds log n; so the number of look-ups must not grow faster than n."""
    for n in (1000, 10_000):
        word = "".join(random.Random(0).choices(alphabet, k=n))
        for method in merge_long, merge_block:
            ranks = CountingDict(GPT2.ranks)
            assert method(word, ranks)
            assert ranks.asked <= 5 * n


def test_blocks_that_are_equal_are_merged_once() -> None:
    ranks = CountingDict(GPT2.ranks)
    assert merge_long("ab" * 2000, ranks) == merge("ab" * 2000, GPT2.ranks)
    assert ranks.asked <= 10 * BLOCK


@given(st.one_of(texts, st.text("ab", max_size=60), st.text("the in", max_size=60)))
def test_all_ways_to_merge_agree(word: str) -> None:
    characters = byte_spelling(word)
    for tokenizer in GPT2, TINY:
        expected = merge(characters, tokenizer.ranks)
        assert merge_block(characters, tokenizer.ranks) == expected
        assert merge_long(characters, tokenizer.ranks, size=6, overlap=2) == expected


@pytest.mark.parametrize(
    "alphabet", ["abcdefghijklmnopqrstuvwxyz", "0123456789", "ACGT", "ab", "!=-", "あい", "漢字語文", "éü"]
)
def test_a_word_of_several_blocks(alphabet: str) -> None:
    rng = random.Random(0)
    for n in rng.choices(range(BLOCK, 4 * BLOCK), k=5):
        characters = byte_spelling("".join(rng.choices(alphabet, k=n)))
        for tokenizer in GPT2, TINY:
            assert merge_long(characters, tokenizer.ranks) == merge(characters, tokenizer.ranks)


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


@settings(max_examples=500)
@given(st.text("abc", max_size=60), st.integers(0, 10**6).map(any_order), st.integers(1, 12), st.integers(1, 4))
@example("bbbb", ["bb b", "b b"], 2, 1)
def test_all_ways_to_merge_agree_whatever_the_order_of_the_merges(
    word: str, merges: list[str], size: int, overlap: int
) -> None:
    ranks = ranks_of(merges)
    expected = merge(word, ranks)
    assert merge_block(word, ranks) == expected
    assert merge_long(word, ranks, size, overlap) == expected
    tokenizer = tokenizer_of(merges)
    assert [tokenizer.decoder[id] for id in tokenizer.encode(word)] == expected


def test_blocks_that_disagree_become_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of merges: each pair can merge only after the one before it, and "x" decides how all of them do."""
    merges = ["x a", *(f"x{'ab' * n}a b" for n in range(5)), *(f"x{'ab' * n} a" for n in range(1, 5)), "b a", "a b"]
    ranks = ranks_of(merges)
    sizes: list[int] = []

    def recorded(word: str, ranks: dict[str, int], size: int, overlap: int) -> list[str]:
        sizes.append(size)
        return merge_long(word, ranks, size, overlap)

    monkeypatch.setattr(merging, "merge_long", recorded)
    word = "x" + "ab" * 20
    assert merge_long(word, ranks, size=4, overlap=1) == merge(word, ranks)
    assert sizes == [8, 16]


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
def test_a_new_pair_may_have_a_lower_rank(word: str, merges: list[str]) -> None:
    tokenizer, long_word = tokenizer_of(merges), word * LONG
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
    ranks = ranks_of(merges)
    assert merge_long(word, ranks) == merge_block(word, ranks) == merge(word, ranks) == tokens
