"""The memo of words: the ids that the tokenizer gives, in bounded memory."""

from __future__ import annotations

from numpy_gpt2.text.memo import Memo
from numpy_gpt2.tokenizer import Tokenizer

GPT2 = Tokenizer.gpt2()


def test_the_memo_of_words_stays_small() -> None:
    memo = Memo(GPT2.encode_word, max_characters=100, max_word=5)
    for word in [*map(str, range(950, 1200)), "x" * 6, "y" * 5, "z" * 5, *["a", "b"] * 50]:
        assert memo[word] == GPT2.encode(word)
        assert sum(map(len, memo)) <= 100
    assert {"y" * 5, "z" * 5, "a", "b"} <= memo.keys()
    assert "x" * 6 not in memo


def test_a_remembered_word_is_not_encoded_again() -> None:
    encoded = []

    def encode_word(word: str) -> list[int]:
        encoded.append(word)
        return [len(word)]

    memo = Memo(encode_word, max_characters=6, max_word=3)
    assert [memo[word] for word in ("a", "bb", "a", "bb", "long", "long")] == [[1], [2], [1], [2], [4], [4]]
    assert encoded == ["a", "bb", "long", "long"]
    assert memo["ccc"] == [3]
    assert memo.keys() == {"a", "bb", "ccc"}
    assert memo["d"] == [1]
    assert memo.keys() == {"d"}  # the memo was full and started over


def test_a_tokenizer_remembers_the_words_of_a_text() -> None:
    tokenizer = Tokenizer.gpt2()
    tokenizer.encode("one two, one")
    assert tokenizer._memo == {word: GPT2.encode_word(word) for word in ("one", " two", ",", " one")}
