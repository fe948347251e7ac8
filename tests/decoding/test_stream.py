"""The pieces of a text as it grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy_gpt2
from numpy_gpt2.decoding.detokenizer import Detokenizer
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.decoding.stream import TextStream
from numpy_gpt2.generation import generate_batch
from numpy_gpt2.params import HParams
from numpy_gpt2.tokenizer import Tokenizer

HPARAMS = HParams(n_vocab=50257, n_ctx=16, n_embd=4, n_head=1, n_layer=1)


def stream(ids: list[int], stop: Sequence[str] = ()) -> TextStream:
    """The stream of a row whose continuation is these ids."""
    tokenizer = Tokenizer.gpt2()
    model = numpy_gpt2.init(HPARAMS)
    tokens = iter(ids)
    row = Row([0], lambda logits, ids: next(tokens), len(ids), [tokenizer.end_of_text], Detokenizer(tokenizer, stop))
    return TextStream(row, generate_batch([row], model.params, 1))


def test_pieces_are_whole_characters() -> None:
    pieces = list(stream(Tokenizer.gpt2().encode("a 🙂漢 !")))
    assert "".join(pieces) == "a 🙂漢 !"
    assert all(pieces)


def test_half_a_character_at_the_end_becomes_a_replacement_character() -> None:
    first, _ = Tokenizer.gpt2().encode("🙂")
    assert list(stream([64, first])) == ["a", "�"]


def test_the_reason_is_known_at_the_end() -> None:
    pieces = stream([64, 65, 66])
    assert (next(pieces), pieces.finish_reason) == ("a", None)
    assert (list(pieces), pieces.finish_reason) == (["b", "c"], "length")


def test_a_piece_comes_as_soon_as_its_token() -> None:
    made = []
    row = Row([0], lambda logits, ids: 64 + len(ids), 3, detokenizer=Detokenizer(Tokenizer.gpt2()))
    model = numpy_gpt2.init(HPARAMS)
    for piece in TextStream(row, generate_batch([row], model.params, 1)):
        made.append((piece, len(row.ids)))
    assert made == [("b", 1), ("c", 2), ("d", 3)]


def test_a_possible_stop_string_waits() -> None:
    pieces = stream([64, 65, 66, 65, 66, 67], stop=["bcd"])
    assert (list(pieces), pieces.finish_reason) == (["a", "bc"], "stop")
