"""The autoregressive loop against transformers' `generate` and against passes over the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, in_pytorch, random_ids, random_model

import numpy_gpt2
from numpy_gpt2.generation import Row, TextStream, generate
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.model import transformer
from numpy_gpt2.params import Array, HParams
from numpy_gpt2.prompts import Options, start_rows
from numpy_gpt2.sampling import penalize_repetition
from numpy_gpt2.text import Text
from numpy_gpt2.tokenizer import Tokenizer

PROMPTS = ["Once upon a time", "The king", "\n\nThere was", "It's 3 o'clock, said the fox; ", "née 昔々 🙂", ""]


def greedy(logits: Array, ids: list[int]) -> int:
    return int(logits.argmax())


def finish(rows: Sequence[Row], model: GPT2, slide: bool = False) -> list[list[int]]:
    """What the rows have grown to."""
    for _ in generate(rows, model.params, model.hparams.n_head, slide):
        pass
    return [row.ids for row in rows]


def random_prompts(hparams: HParams, lengths: Sequence[int]) -> list[list[int]]:
    return [random_ids(hparams, 1, n, seed=i)[0].tolist() for i, n in enumerate(lengths)]


class TestAgainstHuggingFace:
    @pytest.fixture(autouse=True)
    def precise_tiny(self) -> None:
        """In float64, no two tokens are tied by rounding."""
        self.tiny = numpy_gpt2.load("tiny", dtype="float64")
        assert self.tiny.tokenizer
        self.tokenizer = self.tiny.tokenizer

    def by_hugging_face(self, prompt: str, **options: Any) -> Any:
        torch = pytest.importorskip("torch")
        ids = self.tokenizer.encode(prompt) or [4095]
        return in_pytorch(self.tiny).generate(
            torch.tensor([ids]),
            attention_mask=torch.ones((1, len(ids)), dtype=torch.int64),
            **{"do_sample": False, "pad_token_id": 0, "eos_token_id": 4095, **options},
        )

    def text(self, prompt: str, ids: Any) -> str:
        """What comes after the prompt in ids of transformers."""
        n_prompt = len(self.tokenizer.encode(prompt) or [4095])
        return self.tokenizer.decode(ids[0, n_prompt:].tolist()).removesuffix("<|endoftext|>")

    @pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
    def test_greedy_text_of_tiny(self, prompt: str) -> None:
        expected = self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=100))
        assert self.tiny.generate(prompt, max_new_tokens=100, temperature=0) == expected
        assert len(expected) > 50

    def test_prompts_of_different_lengths_in_one_batch(self) -> None:
        expected = [self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=40)) for prompt in PROMPTS]
        assert self.tiny.generate(PROMPTS, max_new_tokens=40, temperature=0) == expected

    def test_repetition_penalty(self) -> None:
        prompt = "The king said: the king, the king"
        expected = self.text(prompt, self.by_hugging_face(prompt, max_new_tokens=40, repetition_penalty=1.3))
        made = self.tiny.generate(prompt, max_new_tokens=40, temperature=0, repetition_penalty=1.3)
        assert made == expected != self.tiny.generate(prompt, max_new_tokens=40, temperature=0)

    def test_max_length_counts_the_prompt(self) -> None:
        for prompt in PROMPTS:
            expected = self.text(prompt, self.by_hugging_face(prompt, max_length=30, max_new_tokens=None))
            assert self.tiny.generate(prompt, max_length=30, temperature=0) == expected

    def test_log_probabilities_are_the_models_own(self) -> None:
        """Before the penalty and the temperature."""
        torch = pytest.importorskip("torch")
        made = self.tiny.generate(
            "The king", max_new_tokens=20, temperature=0.7, repetition_penalty=1.2, seed=1, return_details=True
        )
        ids = self.tokenizer.encode("The king")
        with torch.no_grad():
            logits = in_pytorch(self.tiny)(torch.tensor([ids + made.ids])).logits[0, len(ids) - 1 : -1]
        theirs = torch.log_softmax(logits, dim=-1).numpy()[np.arange(20), made.ids]
        np.testing.assert_allclose(made.log_probabilities, theirs, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("hparams", SHAPES, ids=str)
    def test_random_models(self, hparams: HParams) -> None:
        torch = pytest.importorskip("torch")
        model = random_model(hparams)
        prompts = random_prompts(hparams, [1, 3, hparams.n_ctx - 1, 2, hparams.n_ctx // 2])
        rows = [Row(prompt, greedy, hparams.n_ctx - len(prompt)) for prompt in prompts]
        made = finish(rows, model)
        peer = in_pytorch(model)
        peer.generation_config.eos_token_id = None
        for prompt, ids in zip(prompts, made, strict=True):
            theirs = peer.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
                max_length=hparams.n_ctx,
                do_sample=False,
                pad_token_id=0,
            )
            assert prompt + ids == theirs[0].tolist()


class TestBatch:
    @pytest.mark.parametrize("lengths", [[3], [1, 6, 2], [4, 4, 4], [1, 1, 6]], ids=str)
    def test_a_row_does_not_depend_on_the_others(self, lengths: list[int]) -> None:
        """Not even when these end sooner, at a token of their own choice."""
        model = random_model(SHAPES[1])

        def row(i: int, prompt: list[int]) -> Row:
            return Row(prompt, greedy, max_new_tokens=[30, 5, 17][i], end_of_text=7 if i == 2 else None)

        prompts = random_prompts(SHAPES[1], lengths)
        together = [row(i, prompt) for i, prompt in enumerate(prompts)]
        alone = [row(i, prompt) for i, prompt in enumerate(prompts)]
        assert finish(together, model) == [finish([one], model)[0] for one in alone]
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.finish_reason == theirs.finish_reason
            np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=0, atol=1e-12)

    def test_tokens_are_those_of_passes_over_the_whole_text(self) -> None:
        model = random_model(SHAPES[1])
        prompts = random_prompts(SHAPES[1], [3, 11])
        for prompt, made in zip(prompts, finish([Row(p, greedy, 20) for p in prompts], model), strict=True):
            ids = list(prompt)
            for _ in range(20):
                ids.append(int(model.logits(ids)[-1].argmax()))
            assert ids == prompt + made

    def test_equal_prompts_are_read_once_and_ended_rows_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = random_model(SHAPES[1])
        read: list[tuple[int, ...]] = []

        def recorded(ids: Array, *args: Any) -> Array:
            read.append(ids.shape)
            return transformer(ids, *args)

        for room in ("generation", "model"):
            monkeypatch.setattr(f"numpy_gpt2.{room}.transformer", recorded)
        rows = [Row(prompt, greedy, n) for prompt, n in [([1, 2, 3], 3), ([4], 1), ([1, 2, 3], 2), ([1, 2, 3], 4)]]
        made = finish(rows, model)
        assert read == [(2, 3), (3, 1), (2, 1), (1, 1)]
        assert made == [finish([Row(row.tokens[: row.n_prompt], greedy, row.max_new_tokens)], model)[0] for row in rows]

    def test_log_probabilities_that_nobody_wants_are_not_kept(self) -> None:
        model = random_model(SHAPES[1])
        rows = [Row([1, 2], greedy, 5, with_log_probabilities=wanted) for wanted in (True, False)]
        assert [len(ids) for ids in finish(rows, model)] == [5, 5]
        assert [len(row.log_probabilities) for row in rows] == [5, 0]

    def test_a_step_says_how_many_took_part(self) -> None:
        model = random_model(SHAPES[1])
        rows = [Row([1], greedy, 3), Row([2], greedy, 1), Row([2], greedy, 0)]
        assert list(generate(rows, model.params, model.hparams.n_head)) == [2, 1, 1]

    def test_a_long_prompt_is_read_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = random_model(SHAPES[1])
        prompts = random_prompts(SHAPES[1], [30, 4, 17])
        whole = finish([Row(prompt, greedy, 9) for prompt in prompts], model)
        read: list[int] = []

        def recorded(ids: Array, *args: Any) -> Array:
            read.append(ids.shape[1])
            return transformer(ids, *args)

        for room in ("generation", "model"):
            monkeypatch.setattr(f"numpy_gpt2.{room}.transformer", recorded)
        monkeypatch.setattr("numpy_gpt2.model.PIECE", 3 * 8)  # of three texts
        rows = [Row(prompt, greedy, 9) for prompt in prompts]
        assert finish(rows, model) == whole
        assert read == [8, 8, 8, 6, *[1] * 8]
        assert finish([Row(prompts[0], greedy, 50)], model, slide=True)[0][:9] == whole[0]

    def test_there_may_be_nothing_to_do(self) -> None:
        model = random_model(SHAPES[1])
        assert list(generate([], model.params, model.hparams.n_head)) == []
        assert list(generate([Row([2], greedy, 0)], model.params, model.hparams.n_head)) == []


class TestEnds:
    @staticmethod
    def run(choices: Sequence[int], n_prompt: int, max_new_tokens: int) -> tuple[list[int], str | None]:
        model = random_model(SHAPES[0])  # its context holds 7
        chosen = iter(choices)
        row = Row(range(1, n_prompt + 1), lambda logits, ids: next(chosen), max_new_tokens, end_of_text=299)
        finish([row], model)
        assert len(row.log_probabilities) == len(row.ids)
        return row.ids, row.finish_reason

    def test_length(self) -> None:
        assert self.run([5] * 9, n_prompt=2, max_new_tokens=3) == ([5, 5, 5], "length")

    def test_no_length(self) -> None:
        assert self.run([], n_prompt=2, max_new_tokens=0) == ([], "length")

    def test_end_of_text_is_not_part_of_the_text(self) -> None:
        assert self.run([5, 6, 299], n_prompt=2, max_new_tokens=5) == ([5, 6], "end_of_text")

    def test_context_is_full(self) -> None:
        assert self.run([5] * 9, n_prompt=3, max_new_tokens=100) == ([5, 5, 5, 5], "context")

    def test_prompt_fills_the_context(self) -> None:
        assert self.run([], n_prompt=7, max_new_tokens=100) == ([], "context")
        assert self.run([], n_prompt=7, max_new_tokens=0) == ([], "length")

    def test_length_and_context_together(self) -> None:
        assert self.run([5] * 9, n_prompt=3, max_new_tokens=4) == ([5, 5, 5, 5], "length")

    def test_a_row_may_be_ended_from_outside(self) -> None:
        model = random_model(SHAPES[1])
        rows = [Row([1], greedy, 5), Row([2], greedy, 5)]
        for _ in generate(rows, model.params, model.hparams.n_head):
            rows[0].finish_reason = "stop"
        assert [len(row.ids) for row in rows] == [1, 5]


class TestSlide:
    @pytest.mark.parametrize("hparams", [*SHAPES, SHAPES[1]._replace(n_ctx=1), SHAPES[1]._replace(n_ctx=2)], ids=str)
    def test_the_oldest_half_is_dropped_and_the_rest_read_again(self, hparams: HParams) -> None:
        model = random_model(hparams)
        n_ctx = hparams.n_ctx
        prompts = random_prompts(hparams, [1, max(1, n_ctx - 1), n_ctx, n_ctx + 1, 5 * n_ctx])
        made = finish([Row(prompt, greedy, 3 * n_ctx + 1) for prompt in prompts], model, slide=True)
        for prompt, ids in zip(prompts, made, strict=True):
            context, expected = list(prompt), []
            for _ in range(3 * n_ctx + 1):
                if len(context) >= n_ctx:
                    context = context[-(n_ctx - n_ctx // 2) :]
                expected.append(int(model.logits(context)[-1].argmax()))
                context.append(expected[-1])
            assert ids == expected

    def test_the_penalty_knows_what_was_dropped(self) -> None:
        model = random_model(SHAPES[0])
        seen = []

        def choose(logits: Array, ids: list[int]) -> int:
            seen.append(list(ids))
            return int(penalize_repetition(logits, ids, 2.0).argmax())

        (made,) = finish([Row([3, 1, 4], choose, 30)], model, slide=True)
        assert seen == [[3, 1, 4, *made[:n]] for n in range(30)]


class TestStartRows:
    @staticmethod
    def draws(n_rows: int, seed: Any = 5) -> list[list[int]]:
        model = random_model(SHAPES[1])
        rows = start_rows([[3]] * n_rows, 1, Options(12, seed=seed), model.hparams, None)
        return finish(rows, model)

    def test_a_row_draws_the_same_numbers_whatever_the_batch_size(self) -> None:
        five = self.draws(5)
        assert self.draws(1) == five[:1]
        assert self.draws(3) == five[:3]
        assert len({*map(tuple, five)}) == 5

    def test_a_seed_sequence_goes_on(self) -> None:
        seed = np.random.SeedSequence(5)
        assert self.draws(2, seed) + self.draws(3, seed) == self.draws(5)

    def test_rows_of_one_prompt_follow_one_another(self) -> None:
        model = random_model(SHAPES[1])
        rows = start_rows([[3], [4]], 3, Options(12, seed=5), model.hparams, None)
        assert [row.tokens for row in rows] == [[3]] * 3 + [[4]] * 3
        assert finish(rows, model)[:3] == self.draws(3)

    def test_the_prompt_at_fault_is_named(self) -> None:
        with pytest.raises(ValueError, match="^prompt 2: token id 11 is outside the vocabulary"):
            start_rows([[3], [11]], 1, Options(), SHAPES[1], None)


class TestStream:
    @staticmethod
    def stream(ids: list[int], stop: Sequence[str] = ()) -> TextStream:
        tokenizer = Tokenizer.gpt2()
        model = numpy_gpt2.init(HParams(n_vocab=50257, n_ctx=16, n_embd=4, n_head=1, n_layer=1))
        tokens = iter(ids)
        row = Row([0], lambda logits, ids: next(tokens), len(ids), tokenizer.end_of_text, Text(tokenizer, stop))
        return TextStream(row, generate([row], model.params, 1))

    def test_pieces_are_whole_characters(self) -> None:
        pieces = list(self.stream(Tokenizer.gpt2().encode("a 🙂漢 !")))
        assert "".join(pieces) == "a 🙂漢 !"
        assert all(pieces)

    def test_half_a_character_at_the_end_is_shown_as_such(self) -> None:
        first, _ = Tokenizer.gpt2().encode("🙂")
        assert list(self.stream([64, first])) == ["a", "�"]

    def test_the_reason_is_known_at_the_end(self) -> None:
        stream = self.stream([64, 65, 66])
        assert (next(stream), stream.finish_reason) == ("a", None)
        assert (list(stream), stream.finish_reason) == (["b", "c"], "length")

    def test_pieces_come_as_they_are_made(self) -> None:
        made = []
        row = Row([0], lambda logits, ids: 64 + len(ids), 3, text=Text(Tokenizer.gpt2()))
        model = numpy_gpt2.init(HParams(n_vocab=50257, n_ctx=16, n_embd=4, n_head=1, n_layer=1))
        for piece in TextStream(row, generate([row], model.params, 1)):
            made.append((piece, len(row.ids)))
        assert made == [("b", 1), ("c", 2), ("d", 3)]

    def test_what_may_become_a_stop_string_waits(self) -> None:
        stream = self.stream([64, 65, 66, 65, 66, 67], stop=["bcd"])
        assert (list(stream), stream.finish_reason) == (["a", "bc"], "stop")


class TestGenerate:
    def test_what_comes_back_is_of_the_kind_of_the_prompt(self, tiny: GPT2) -> None:
        texts = ["The king", "A fox said"]
        alone = [tiny.generate(text, 6, temperature=0) for text in texts]
        assert tiny.generate(texts, 6, temperature=0) == alone
        assert tiny.generate(texts[:1], 6, temperature=0) == alone[:1]
        assert tiny.generate(texts[0], 6, temperature=0, num_return_sequences=2) == [alone[0]] * 2
        assert tiny.generate(texts, 6, temperature=0, num_return_sequences=2) == [[alone[0]] * 2, [alone[1]] * 2]
        assert tiny.generate(texts[:1], 6, temperature=0, num_return_sequences=2) == [[alone[0]] * 2]

    def test_ids_are_accepted_wherever_text_is(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        ids = tiny.tokenizer.encode("The king")
        expected = tiny.generate("The king", 5, temperature=0)
        for prompt in (ids, tuple(ids), np.array(ids), np.array(ids, np.uint16)):
            assert tiny.generate(prompt, 5, temperature=0) == expected
        several: list[Any] = [[ids, "The king"], ("The king", tuple(ids)), np.array([ids, ids]), iter([ids, ids])]
        for prompts in several:
            assert tiny.generate(prompts, 5, temperature=0) == [expected] * 2
        assert "".join(tiny.stream(ids, 5, temperature=0)) == expected
        once: Any = iter(ids)
        assert "".join(tiny.stream(once, 5, temperature=0)) == expected
        assert tiny.tokenizer
        batch = tiny.tokenizer.encode_batch(["The king", "A fox said", ""])
        assert tiny.generate(batch, 5, temperature=0) == tiny.generate(["The king", "A fox said", ""], 5, temperature=0)

    def test_without_prompts_there_is_nothing(self, tiny: GPT2) -> None:
        several: list[Any] = [[], (), iter([]), np.zeros((0, 3), int)]
        for nothing in several:
            assert tiny.generate(nothing) == tiny.generate(nothing, num_return_sequences=3) == []

    def test_five_continuations_are_repeatable_by_seed(self, tiny: GPT2) -> None:
        first, again, other = (
            tiny.generate("Hello, I'm a language model,", max_new_tokens=20, num_return_sequences=5, seed=seed)
            for seed in (1, 1, 2)
        )
        assert first == again
        assert len({*first, *other}) == 10
        assert tiny.generate("Hello, I'm a language model,", 20, seed=1) == first[0]

    def test_without_a_seed_texts_differ(self, tiny: GPT2) -> None:
        assert len({tiny.generate("The king", max_new_tokens=16) for _ in range(4)}) > 1
        assert len({*tiny.generate("The king", max_new_tokens=16, num_return_sequences=4)}) > 1

    def test_the_full_text(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        text = tiny.generate("The king", 6, temperature=0)
        for prompt in ("The king", tiny.tokenizer.encode("The king")):
            assert tiny.generate(prompt, 6, temperature=0, return_full_text=True) == "The king" + text
            pieces = list(tiny.stream(prompt, 6, temperature=0, return_full_text=True))
            assert (pieces[0], "".join(pieces)) == ("The king", "The king" + text)
        assert tiny.generate("", 6, temperature=0, return_full_text=True) == tiny.generate("", 6, temperature=0)

    def test_the_details(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        made = tiny.generate("The king", temperature=0, stop=["angry", "xyz"], return_details=True)
        assert made.text == " was very "
        assert made.finish_reason == "stop"
        assert tiny.tokenizer.decode(made.ids).startswith(made.text)
        assert len(made.log_probabilities) == len(made.ids)
        (listed,) = tiny.generate(["The king"], temperature=0, stop="angry", return_details=True)
        assert listed.text == made.text

    def test_ids_of_a_text_that_was_cut_are_those_that_it_is_made_of(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        made = tiny.generate("The king", temperature=0, stop=" very", return_details=True)
        assert (made.text, made.ids) == (" was", tiny.tokenizer.encode(" was"))
        assert len(made.log_probabilities) == 1

    def test_the_model_may_end_the_text(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        made = tiny.generate(
            "and they lived happily ever after.\n\n", 30, num_return_sequences=20, seed=1, return_details=True
        )
        ended = [generation for generation in made if generation.finish_reason == "end_of_text"]
        assert ended
        assert all(tiny.tokenizer.end_of_text not in generation.ids for generation in made)
        assert all(
            len(generation.ids) < 30 and generation.text == tiny.tokenizer.decode(generation.ids)
            for generation in ended
        )

    def test_what_was_held_back_belongs_to_a_text_that_ends_otherwise(self, tiny: GPT2) -> None:
        """It might have become a stop string."""
        assert tiny.generate("The king", 4, temperature=0, stop="ry!") == " was very angry"

    def test_numbers_of_numpy_are_numbers(self, tiny: GPT2) -> None:
        expected = tiny.generate("The king", 200, seed=1, top_k=40)
        options: dict[str, Any] = {"seed": np.uint8(1), "top_k": np.uint8(40)}
        assert tiny.generate("The king", np.uint8(200), **options) == expected  # type: ignore[arg-type]
        several: dict[str, Any] = {"num_return_sequences": np.uint8(200), "max_length": np.int8(4)}
        assert len(tiny.generate(["The king"] * 2, **several)[1]) == 200

    def test_stop_strings_may_be_in_anything_that_can_be_gone_through(self, tiny: GPT2) -> None:
        several: list[Any] = [["angry"], ("angry",), iter(["xyz", "angry"]), np.array(["angry", "xyz"])]
        for stop in several:
            assert tiny.generate("The king", 9, temperature=0, stop=stop) == " was very "

    def test_a_call_that_is_refused_draws_no_random_numbers(self, tiny: GPT2) -> None:
        seed = np.random.SeedSequence(5)
        with pytest.raises(ValueError, match="token id 4096"):
            tiny.generate([4096], seed=seed)
        assert tiny.generate("The king", 5, seed=seed) == tiny.generate("The king", 5, seed=5)

    def test_slide_goes_on_beyond_the_context(self, tiny: GPT2) -> None:
        made = tiny.generate("The king", 300, temperature=0, return_details=True)
        assert made.finish_reason == "context"
        on = tiny.generate("The king", 300, temperature=0, slide=True, return_details=True)
        assert (len(on.ids), on.finish_reason) == (300, "length")
        assert on.text.startswith(made.text)
        assert len(tiny.generate("word " * 300, 9, temperature=0, slide=True, return_details=True).ids) == 9

    def test_progress(self, tiny: GPT2) -> None:
        steps: list[int] = []
        tiny.generate(["The king", "A fox"], 5, temperature=0, num_return_sequences=2, progress=steps.append)
        assert steps == [4] * 5
        for _ in tiny.stream("The king", 3, temperature=0, progress=steps.append):
            pass
        assert steps[5:] == [1] * 3

    def test_an_empty_prompt_begins_at_end_of_text(self, tiny: GPT2) -> None:
        assert tiny.generate("", 5, temperature=0) == tiny.generate([4095], 5, temperature=0)
        assert "".join(tiny.stream([], 5, temperature=0)) == tiny.generate([4095], 5, temperature=0)
        assert tiny.generate(["", "The king"], 5, temperature=0)[0] == tiny.generate("", 5, temperature=0)

    def test_end_of_text_in_a_prompt_is_only_text(self, tiny: GPT2) -> None:
        assert tiny.generate("<|endoftext|>", 5, temperature=0) != tiny.generate("", 5, temperature=0)

    @pytest.mark.parametrize(
        ("prompt", "options", "complaint"),
        [
            ("word " * 300, {}, r"\d+ tokens are too many for this model, whose context holds 256"),
            ([1] * 257, {}, "257 tokens are too many for this model, whose context holds 256"),
            ([4096], {}, "token id 4096 is outside the vocabulary"),
            ([1.5], {}, "token ids must be whole numbers"),
            (b"bytes", {}, "token ids must be whole numbers"),
            (5, {}, "token ids must be whole numbers"),
            ([[[1], [2]]], {}, "a prompt is one row of token ids"),
            ([[[1], [2, 3]]], {}, "token ids must be one row of numbers, or several rows of the same length"),
            (["a", [1, 4096]], {}, "prompt 2: token id 4096 is outside"),
            (["a", "word " * 300], {}, r"prompt 2: \d+ tokens are too many"),
            ("a\ud800", {}, "the text is not UTF-8"),
            ("a", {"temperature": -1}, "temperature must be 0"),
            ("a", {"top_k": -1}, "top_k must be"),
            ("a", {"top_p": 2}, "top_p must be"),
            ("a", {"repetition_penalty": 0}, "repetition_penalty must be"),
            ("a", {"max_new_tokens": -1}, "max_new_tokens must be"),
            ("a", {"max_new_tokens": 2.5}, "max_new_tokens must be"),
            ("a", {"max_length": -1}, "max_length must be"),
            ("a b c", {"max_length": 2}, "the prompt has 3 tokens, more than max_length, 2"),
            ("a", {"max_length": 2, "max_new_tokens": 2}, "give max_new_tokens or max_length"),
            ("a", {"seed": -1}, "seed must be"),
            ("a", {"seed": 1.5}, "seed must be"),
            ("a", {"stop": ""}, "a stop string must be text, and at least one character, not ''"),
            ("a", {"stop": ["b", 3]}, "a stop string must be text, and at least one character, not 3"),
            ("a", {"stop": 3}, "stop must be text, or a list of texts, not 3"),
            ("a", {"temperature": "hot"}, "temperature must be a number, not 'hot'"),
            ("a", {"top_p": None}, "top_p must be a number, not None"),
            ("a", {"stop": "\ud800"}, "the text is not UTF-8"),
            ("a", {"num_return_sequences": 0}, "num_return_sequences must be a whole number, 1 or more"),
        ],
        ids=str,
    )
    def test_bad_arguments_are_refused(self, tiny: GPT2, prompt: Any, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValueError, match=f"^{complaint}"):
            tiny.generate(prompt, **options)

    def test_a_stream_refuses_before_its_first_piece(self, tiny: GPT2) -> None:
        with pytest.raises(ValueError, match="temperature must be"):
            tiny.stream("a", temperature=-1)
        with pytest.raises(ValueError, match="tokens are too many"):
            tiny.stream("word " * 300)
        with pytest.raises(TypeError, match=r"stream\(\) got an unexpected keyword argument 'num_return_sequences'"):
            tiny.stream("a", num_return_sequences=2)
        with pytest.raises(ValueError, match="one prompt at a time"):
            tiny.stream(["a", "b"])  # type: ignore[list-item]

    def test_a_model_without_a_vocabulary_says_so(self) -> None:
        model = random_model(SHAPES[0])
        for make in (model.generate, model.stream):
            with pytest.raises(ValueError, match="came without a vocabulary .* and knows only ids"):
                make([1, 2])
        with pytest.raises(ValueError, match="came without a vocabulary"):
            model.generate("a", return_details=True)
        for about_text in ({"stop": "x"}, {"return_full_text": True}):
            with pytest.raises(ValueError, match="came without a vocabulary"):
                model.generate([1, 2], return_details=True, **about_text)

    def test_a_model_without_a_vocabulary_gives_ids(self) -> None:
        made = random_model(SHAPES[1]).generate([1, 2], 3, temperature=0, return_details=True)
        assert made.ids == finish([Row([1, 2], greedy, 3)], random_model(SHAPES[1]))[0]
        assert (made.text, made.finish_reason) == ("", "length")
