"""The autoregressive loop against transformers' `generate`, its three ends, and text as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_model

import numpy_gpt2
from numpy_gpt2.generation import FinishReason, TextStream, generate
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array
from numpy_gpt2.tokenizer import Tokenizer

PROMPTS = ["Once upon a time", "The king", "\n\nThere was", "It's 3 o'clock, said the fox; ", "née 昔々 🙂", ""]


def greedy(logits: Array) -> int:
    return int(logits.argmax())


def finish(tokens: Generator[int, None, FinishReason]) -> tuple[list[int], FinishReason]:
    """All tokens, and why they ended."""
    made = []
    while True:
        try:
            made.append(next(tokens))
        except StopIteration as end:
            return made, end.value


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_greedy_text_of_tiny_is_that_of_pytorch(prompt: str) -> None:
    """In float64, where no two tokens are tied by rounding."""
    torch = pytest.importorskip("torch")
    tiny = numpy_gpt2.load("tiny", dtype="float64")
    assert tiny.tokenizer
    ids = tiny.tokenizer.encode(prompt) or [tiny.tokenizer.end_of_text]
    theirs = in_pytorch(tiny).generate(
        torch.tensor([ids]), max_new_tokens=100, do_sample=False, pad_token_id=0, eos_token_id=4095
    )
    expected = tiny.tokenizer.decode(theirs[0, len(ids) :].tolist()).removesuffix("<|endoftext|>")
    assert tiny.generate(prompt, max_new_tokens=100, temperature=0) == expected
    assert len(expected) > 50


def test_tokens_are_those_of_passes_over_the_whole_sequence() -> None:
    gpt2 = random_model(SHAPES[1])
    tokens, _ = finish(generate([3, 1, 4], gpt2.params, gpt2.hparams.n_head, greedy, max_new_tokens=20))
    ids = [3, 1, 4]
    for _ in range(20):
        ids.append(int(gpt2.logits(ids)[-1].argmax()))
    assert tokens == ids[3:]


class TestEnds:
    @staticmethod
    def run(choose: Callable[[Array], int], n_prompt: int, max_new_tokens: int) -> tuple[list[int], FinishReason]:
        gpt2 = random_model(SHAPES[0])  # its context holds 7
        prompt = list(range(1, n_prompt + 1))
        return finish(generate(prompt, gpt2.params, 3, choose, max_new_tokens, end_of_text=299))

    def test_length(self) -> None:
        assert self.run(lambda logits: 5, n_prompt=2, max_new_tokens=3) == ([5, 5, 5], "length")

    def test_no_length(self) -> None:
        assert self.run(lambda logits: 5, n_prompt=2, max_new_tokens=0) == ([], "length")

    def test_end_of_text_is_not_part_of_the_text(self) -> None:
        choices = iter([5, 6, 299])
        assert self.run(lambda logits: next(choices), n_prompt=2, max_new_tokens=5) == ([5, 6], "end_of_text")

    def test_context_is_full(self) -> None:
        assert self.run(lambda logits: 5, n_prompt=3, max_new_tokens=100) == ([5, 5, 5, 5], "context")

    def test_prompt_fills_the_context(self) -> None:
        assert self.run(lambda logits: 5, n_prompt=7, max_new_tokens=100) == ([], "context")

    def test_length_and_context_together(self) -> None:
        assert self.run(lambda logits: 5, n_prompt=3, max_new_tokens=4) == ([5, 5, 5, 5], "length")


class TestStream:
    @staticmethod
    def stream(ids: list[int]) -> TextStream:
        def tokens() -> Generator[int, None, FinishReason]:
            yield from ids
            return "length"

        return TextStream(tokens(), Tokenizer.gpt2())

    def test_characters_of_several_tokens_come_whole(self) -> None:
        ids = Tokenizer.gpt2().encode("a 🙂漢字 👩‍👩‍👧!")
        pieces = list(self.stream(ids))
        assert "".join(pieces) == "a 🙂漢字 👩‍👩‍👧!"
        assert "�" not in "".join(pieces)
        assert len(pieces) < len(ids)
        assert all(pieces)

    def test_half_a_character_at_the_end_is_shown_as_such(self) -> None:
        first, _ = Tokenizer.gpt2().encode("🙂")
        assert "".join(self.stream([64, first])) == "a�"

    def test_the_reason_is_known_at_the_end(self) -> None:
        stream = self.stream([64, 65])
        assert next(stream) == "a"
        assert stream.finish_reason is None
        assert list(stream) == ["b"]
        assert stream.finish_reason == "length"

    def test_pieces_come_as_they_are_made(self) -> None:
        made = []

        def tokens() -> Generator[int, None, FinishReason]:
            for id in [64, 65, 66]:
                made.append(id)
                yield id
            return "length"

        stream = TextStream(tokens(), Tokenizer.gpt2())
        assert made == []
        for i, piece in enumerate(stream):
            assert (piece, len(made)) == ("abc"[i], i + 1)


class TestGenerate:
    def test_a_seed_gives_the_same_text_again_and_another_seed_another(self, tiny: GPT2) -> None:
        first, again, other = (tiny.generate("The king", seed=seed) for seed in (1, 1, 2))
        assert first == again != other

    def test_without_a_seed_texts_differ(self, tiny: GPT2) -> None:
        assert len({tiny.generate("The king", max_new_tokens=16) for _ in range(4)}) > 1

    def test_a_prompt_may_be_ids(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        ids = tiny.tokenizer.encode("The king")
        for prompt in (ids, tuple(ids), np.array(ids)):
            assert tiny.generate(prompt, temperature=0) == tiny.generate("The king", temperature=0)

    def test_an_empty_prompt_begins_at_end_of_text(self, tiny: GPT2) -> None:
        assert tiny.generate("", temperature=0) == tiny.generate([4095], temperature=0)
        assert tiny.generate([], temperature=0) == tiny.generate([4095], temperature=0)

    def test_end_of_text_in_a_prompt_is_only_text(self, tiny: GPT2) -> None:
        assert tiny.generate("<|endoftext|>", temperature=0) != tiny.generate("", temperature=0)

    @pytest.mark.parametrize(
        ("prompt", "options", "complaint"),
        [
            ("word " * 300, {}, r"\d+ tokens are too many for this model, whose context holds 256"),
            ([1] * 257, {}, "257 tokens are too many for this model, whose context holds 256"),
            ([4096], {}, "token id 4096 is outside the vocabulary"),
            ([[1, 2], [3, 4]], {}, "one prompt"),
            ("a", {"temperature": -1}, "temperature must be 0"),
            ("a", {"top_k": -1}, "top_k must be"),
            ("a", {"top_p": 2}, "top_p must be"),
            ("a", {"max_new_tokens": -1}, "max_new_tokens must be"),
            ("a", {"seed": -1}, "seed must be"),
            ("a", {"seed": 1.5}, "seed must be"),
            ("a", {"max_new_tokens": 2.5}, "max_new_tokens must be"),
        ],
    )
    def test_bad_arguments_are_refused_at_once(
        self, tiny: GPT2, prompt: str | list[int], options: dict[str, int], complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            tiny.stream(prompt, **options)

    def test_a_model_without_a_vocabulary_says_so(self) -> None:
        with pytest.raises(ValueError, match="came without a vocabulary .* and knows only ids"):
            random_model(SHAPES[0]).generate([1, 2])
