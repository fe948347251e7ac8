"""Text from tokens as they arrive, against Python's own search in all the bytes so far."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt2.decoding.detokenizer import Detokenizer
from numpy_gpt2.tokenizer import Tokenizer

GPT2 = Tokenizer.gpt2()


def feed(detokenizer: Detokenizer, ids: list[int]) -> tuple[list[str], int]:
    """The pieces of text that these tokens give, and the number of tokens until a stop string was complete."""
    pieces = []
    for n, token in enumerate(ids, start=1):
        ended = detokenizer.add(token)
        pieces.append(detokenizer.take())
        if ended:
            return pieces, n
    detokenizer.finish()
    return [*pieces, detokenizer.take()], len(ids)


def by_searching_again(ids: list[int], stop: list[str]) -> str:
    """The text before the first stop string, once one is complete."""
    for n in range(1, len(ids) + 1):
        so_far = GPT2.decode_bytes(ids[:n])
        if found := [so_far.index(string.encode()) for string in stop if string.encode() in so_far]:
            return so_far[: min(found)].decode(errors="replace")
    return GPT2.decode(ids)


ALPHABET = st.text(alphabet="ab \n.é🙂", max_size=30)


@given(ALPHABET, st.lists(st.text(alphabet="ab \n.é🙂", min_size=1, max_size=6), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    ids = GPT2.encode(text)
    made = Detokenizer(GPT2, stop)
    pieces, _ = feed(made, ids)
    assert "".join(pieces) == made.text == by_searching_again(ids, stop)
    assert "�" not in made.text
    made.finish()
    assert made.take() == ""


@given(st.lists(st.integers(0, 50256), max_size=20), st.lists(st.sampled_from(["�", "é", "e", " t"]), max_size=2))
def test_tokens_that_are_not_utf_8(ids: list[int], stop: list[str]) -> None:
    made = Detokenizer(GPT2, stop)
    feed(made, ids)
    assert made.text == by_searching_again(ids, stop)


def test_a_stop_string_may_span_tokens_and_begin_inside_one() -> None:
    ids = GPT2.encode("One two. END of it")  # 'One', ' two', '.', ' END', ' of', ' it'
    made = Detokenizer(GPT2, ["wo. END o"])
    assert feed(made, ids) == (["One", " t", "", "", ""], 5)
    assert made.n_tokens == 2


def test_tokens_of_the_stop_string_alone_are_not_counted() -> None:
    made = Detokenizer(GPT2, [" END"])
    feed(made, GPT2.encode("One two. END of it"))
    assert (made.text, made.n_tokens) == ("One two.", 3)


def test_half_a_stop_string_is_released_when_it_turns_out_to_be_text() -> None:
    ids = [GPT2.encoder[c] for c in "aabaac"]
    assert feed(Detokenizer(GPT2, ["aabaab"]), ids)[0] == ["", "", "", "", "", "aabaac", ""]
    assert feed(Detokenizer(GPT2, ["aac"]), ids) == (["", "", "aab", "", "", ""], 6)
    assert "".join(feed(Detokenizer(GPT2, ["aabaacX"]), ids)[0]) == "aabaac"


def test_if_a_token_completes_two_stop_strings_the_earlier_one_counts() -> None:
    made = Detokenizer(GPT2, ["END", "two"])
    feed(made, [GPT2.encoder["a"], *GPT2.encode(" two")])
    assert made.text == "a "


def test_stop_strings_are_not_searched_for_in_the_prompt() -> None:
    made = Detokenizer(GPT2, ["END", "Da"], before=b"the END")
    assert made.take() == "the END"
    pieces, _ = feed(made, [GPT2.encoder["D"], GPT2.encoder["a"]])
    assert pieces == ["", ""]


def test_a_character_may_begin_in_the_prompt() -> None:
    first, second = GPT2.encode("🙂")
    made = Detokenizer(GPT2, before=GPT2.decode_bytes([first]))
    assert made.take() == ""
    assert feed(made, [second])[0] == ["🙂", ""]


def test_characters_of_several_tokens_come_whole() -> None:
    ids = GPT2.encode("a 🙂漢字 👩‍👩‍👧!")
    pieces, _ = feed(Detokenizer(GPT2), ids)
    assert "".join(pieces) == "a 🙂漢字 👩‍👩‍👧!"
    assert "" in pieces


@pytest.mark.parametrize("stop", [[], ["x"]])
def test_half_a_character_at_the_end_becomes_a_replacement_character(stop: list[str]) -> None:
    first, _ = GPT2.encode("🙂")
    ids = [64, first, *GPT2.encode("x")] if stop else [64, first]
    assert "".join(feed(Detokenizer(GPT2, stop), ids)[0]) == "a�"


@settings(deadline=None)
@given(ALPHABET, st.lists(st.text(alphabet="ab \n.é🙂", min_size=1, max_size=6), max_size=3), st.data())
def test_bytes_that_were_there_before_are_not_part_of_the_text(text: str, stop: list[str], data: st.DataObject) -> None:
    """Nor is a stop string found in them."""
    n_characters = data.draw(st.integers(0, len(text)))
    before, after = text[:n_characters], text[n_characters:]
    made = Detokenizer(GPT2, stop, n_given=len(before.encode()))
    feed(made, GPT2.encode(text))
    found = [after.index(string) for string in stop if string in after]
    assert after.startswith(made.text)
    assert len(made.text) >= min(found, default=len(after))
    assert not any(string in made.text for string in stop)


@settings(deadline=None)
@given(ALPHABET, st.lists(st.text(alphabet="ab \n.é🙂", min_size=1, max_size=6), max_size=3))
def test_tokens_that_are_certain_stay(text: str, stop: list[str]) -> None:
    """No stop string cuts off a token that was certain, and each token of the text that was taken is."""
    made, n_certain, taken = Detokenizer(GPT2, stop), 0, ""
    for token in GPT2.encode(text):
        is_ended = made.add(token)
        n_certain, taken = max(n_certain, made.n_certain), taken + made.take()
        if is_ended:
            break
        assert len(GPT2.decode_bytes(GPT2.encode(text)[:n_certain])) >= len(taken.encode())
    assert n_certain <= made.n_tokens
    made.finish()
    assert made.n_certain == made.n_tokens
