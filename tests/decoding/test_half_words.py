"""What is taken back from the end of a text, and what may be written in its place, by the bytes of all tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vocabulary import MERGES, VOCAB

from numpy_gpt2.decoding.half_words import HalfWord, take_back
from numpy_gpt2.tokenizer import Tokenizer

GPT2 = Tokenizer.gpt2()
SMALL = Tokenizer(VOCAB, MERGES)  # "hello", " wo" and "é" are the longest tokens
BYTES = [SMALL.decode_bytes([id]) for id in range(SMALL.n_vocab)]
TEXTS = st.text(alphabet="helo wé<\n", max_size=12)


def taken(text: str, tokenizer: Tokenizer = SMALL) -> str | None:
    half_word = take_back(text, tokenizer.encode(text), tokenizer)
    return half_word.text if half_word else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hel", "hel"),  # two tokens, "he" and "l", with which "hell" begins
        ("hello hel", "hel"),  # no token begins with " hel"
        ("he", "he"),
        ("hello", None),
        ("", None),
        ("hello ", " "),
        ("hello w", " w"),
        ("hello wo", None),
        ("wo", None),
        ("é", None),
        ("<", None),  # a special token does not count
        ("x" * 1000 + "h", "h"),
    ],
)
def test_the_last_tokens_are_taken_back_as_far_as_a_longer_one_begins_with_them(
    text: str, expected: str | None
) -> None:
    assert taken(text) == expected


def test_gpt2s_vocabulary() -> None:
    assert taken("Once upon a ti", GPT2) == " ti"
    assert taken("a beauti", GPT2) == " beauti"
    assert taken("I don'", GPT2) == "'"
    assert taken("the end.", GPT2) == "."
    assert taken("a 日", GPT2) == ""  # the last byte of a character; the token is not whole
    assert taken("nevertheless", GPT2) is None


@settings(deadline=None)
@given(TEXTS)
def test_nothing_longer_could_have_been_taken_back(text: str) -> None:
    ids = SMALL.encode(text)
    half_word = take_back(text, ids, SMALL)
    n = half_word.n_tokens if half_word else 0
    for k in range(1, len(ids) + 1):
        ending = SMALL.decode_bytes(ids[len(ids) - k :])
        is_begun = any(data.startswith(ending) and len(data) > len(ending) for data in BYTES[:-1])
        if k == n:
            assert is_begun
            assert half_word
            assert (half_word.n_bytes, half_word.text) == (len(ending), ending.decode(errors="ignore"))
        elif k > n:
            assert not is_begun


@settings(deadline=None)
@given(TEXTS.filter(bool), st.data())
def test_what_is_admitted_agrees_with_what_was_taken_back(text: str, data: st.DataObject) -> None:
    """Whatever is chosen, the text that was there is written, and nothing is admitted after that is refused."""
    half_word = HalfWord(SMALL, SMALL.encode(text))
    logits = np.random.default_rng(0).normal(size=SMALL.n_vocab)
    wanted, made = text.encode(), list[int]()
    while len(written := SMALL.decode_bytes(made)) < len(wanted):
        rest = wanted[len(written) :]
        admitted = half_word.admit(logits, made)
        agree = [each.startswith(rest) or rest.startswith(each) for each in BYTES]
        agree[SMALL.end_of_text] = False
        np.testing.assert_array_equal(admitted, np.where(agree, logits, -np.inf))
        made.append(data.draw(st.sampled_from(np.flatnonzero(agree).tolist())))
    assert written.startswith(wanted)
    np.testing.assert_array_equal(half_word.admit(logits, made), logits)


def test_a_text_that_ends_in_an_added_token() -> None:
    """Such a token is no part of a word."""
    tokenizer = Tokenizer({**VOCAB, "<a>he": len(VOCAB)}, MERGES, added=["<a>he"])
    assert taken("hello<a>he", tokenizer) is None
    assert taken("hellohe", tokenizer) == "he"
