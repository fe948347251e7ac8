"""A long text in pieces: the words of the pieces are those of the text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt2.text.pieces import pieces
from numpy_gpt2.tokenizer import split

texts = st.text(
    st.one_of(st.characters(), st.sampled_from("'stre  \n\t\x1c\x85\xa0\u3000aAé01.!,漢\u088f")), max_size=60
)


@settings(max_examples=500, deadline=None)
@given(texts, st.integers(1, 20))
def test_the_words_are_those_of_the_text(text: str, size: int) -> None:
    cut = [*pieces(text, size)]
    assert "".join(cut) == text
    assert [word for piece in cut for word in split(piece)] == split(text)
    assert all(len(piece) >= size for piece in cut[:-1])


def test_a_text_is_cut_where_it_can_be() -> None:
    assert [*pieces("a bc  d\n\ne", size=2)] == ["a bc", "  d", "\n\ne"]
    assert [*pieces("a" * 10**5, size=1)] == ["a" * 10**5]
    assert [*pieces("")] == []
