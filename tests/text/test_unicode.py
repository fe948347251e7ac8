"""Which characters are letters and numbers, against tiktoken."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt2.text.unicode import LATE, as_of_unicode_16
from numpy_gpt2.tokenizer import split

CHARACTERS = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


@pytest.mark.parametrize(
    ("kind", "like", "unlike"),
    [(r"\p{L}", "a", "!"), (r"\p{N}", "1", "!"), (r"[^\s\p{L}\p{N}]", "!", "a")],
    ids=["letters", "numbers", "other signs"],
)
def test_every_character_is_of_the_same_kind_as_in_tiktoken(kind: str, like: str, unlike: str) -> None:
    """A character makes a word with a character of its kind before it. One that never does is white space."""
    tiktoken = pytest.importorskip("tiktoken")
    bytes_only = {bytes([i]): i for i in range(256)}
    matches_only = tiktoken.Encoding("", pat_str=kind, mergeable_ranks=bytes_only, special_tokens={})
    theirs = matches_only.decode(matches_only.encode_ordinary(CHARACTERS))
    words = split("".join(f"{like}{c}{unlike}" for c in CHARACTERS))
    ours = "".join(word[1] for word in words if len(word) == 2 and word[0] == like)
    assert ours == theirs


def test_late_letters_become_symbols_and_nothing_else_changes() -> None:
    changed = as_of_unicode_16(CHARACTERS)
    assert len(changed) == len(CHARACTERS)
    assert {new for old, new in zip(CHARACTERS, changed, strict=True) if old != new} == {"\ufffd"}
    late = [old for old, new in zip(CHARACTERS, changed, strict=True) if old != new]
    assert late == LATE.findall(CHARACTERS)
    assert len(late) > 1000
    assert not regex.search(r"[\p{L}\p{N}]", "\ufffd")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_without_late_letters_is_returned_itself(text: str) -> None:
    """Not a copy: `split` then takes the faster way."""
    if not LATE.search(text):
        assert as_of_unicode_16(text) is text
    assert len(as_of_unicode_16(text)) == len(text)
