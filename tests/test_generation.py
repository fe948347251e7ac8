"""The autoregressive loops, plain and batched, against each other and against transformers' `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, greedy, in_pytorch, random_model, random_prompts

from numpy_gpt2 import generation, sampling
from numpy_gpt2.decoding import prefill
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.generation import generate_batch
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams

OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.5},
    {"temperature": 1.0},
    {"temperature": 0.6, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.1, "min_p": 0.1},
    {"temperature": 0.9, "top_k": 9, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
]


def by_hugging_face(gpt2: GPT2, prompt: list[int], max_length: int) -> list[int]:
    """The ids of a prompt and of its greedy continuation."""
    torch = pytest.importorskip("torch")
    peer = in_pytorch(gpt2)
    peer.generation_config.eos_token_id = None
    made = peer.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones((1, len(prompt)), dtype=torch.int64),
        max_length=max_length,
        do_sample=False,
        pad_token_id=0,
    )
    return made[0].tolist()


def streams(seed: int, n: int) -> list[np.random.Generator]:
    """The random streams from which the rows of a batch draw."""
    return [np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(n)]


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
class TestPlainLoop:
    def test_greedy_text_is_that_of_hugging_face(self, hparams: HParams) -> None:
        gpt2 = random_model(hparams)
        rng = np.random.default_rng(0)
        for prompt in random_prompts(hparams, [1, 3, hparams.n_ctx - 1]):
            n_new = hparams.n_ctx - len(prompt)
            made = generation.generate(prompt, gpt2.params, hparams.n_head, n_new, rng, temperature=0)
            assert made == by_hugging_face(gpt2, prompt, hparams.n_ctx)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_texts_are_those_of_the_batch(self, hparams: HParams, options: dict[str, Any]) -> None:
        """Of both ways to run one: with `generate_batch`, and with `GPT2.generate`, whose default of top_k is 40."""
        gpt2 = random_model(hparams)
        prompts = random_prompts(hparams, [1, 4, 2, 4])
        n_new = hparams.n_ctx - 4
        plain = [
            generation.generate(prompt, gpt2.params, hparams.n_head, n_new, rng, **options)[len(prompt) :]
            for prompt, rng in zip(prompts, streams(5, 4), strict=True)
        ]
        rows = [
            Row(prompt, lambda logits, ids, rng=rng: sampling.next_token(logits, rng, ids, **options), n_new)
            for prompt, rng in zip(prompts, streams(5, 4), strict=True)
        ]
        assert finish(rows, gpt2) == plain
        made = gpt2.generate(prompts, n_new, seed=5, return_details=True, **{"top_k": 0, **options})
        assert [each.ids for each in made] == plain
        (alone,) = gpt2.generate(prompts[:1], n_new, seed=5, return_details=True, **{"top_k": 0, **options})
        assert alone.ids == plain[0]

    def test_the_context_is_cropped(self, hparams: HParams) -> None:
        """Each token is the likeliest one after the n_ctx tokens before it, whatever came before those."""
        torch = pytest.importorskip("torch")
        gpt2, n_ctx = random_model(hparams), hparams.n_ctx
        peer, rng = in_pytorch(gpt2), np.random.default_rng(0)
        for prompt in random_prompts(hparams, [n_ctx - 2, n_ctx, 2 * n_ctx]):
            made = generation.generate(prompt, gpt2.params, hparams.n_head, n_ctx, rng, temperature=0)
            assert len(made) == len(prompt) + n_ctx
            new = range(max(n_ctx, len(prompt)), len(made))
            with torch.no_grad():
                logits = peer(torch.tensor([made[i - n_ctx : i] for i in new])).logits[:, -1]
            assert [made[i] for i in new] == logits.argmax(dim=-1).tolist()

    def test_the_penalty_counts_tokens_that_were_cropped(self, hparams: HParams) -> None:
        gpt2, n_ctx = random_model(hparams), hparams.n_ctx
        (prompt,) = random_prompts(hparams, [2 * n_ctx])
        ids = list(prompt)
        for _ in range(5):
            logits = gpt2.logits(ids[-n_ctx:])[-1]
            ids.append(int(sampling.penalize_repetition(logits, ids, 3.0).argmax()))
        options = {"temperature": 0, "repetition_penalty": 3.0}
        rng = np.random.default_rng(0)
        assert generation.generate(prompt, gpt2.params, hparams.n_head, 5, rng, **options) == ids

    def test_the_prompt_is_not_changed(self, hparams: HParams) -> None:
        gpt2, prompt = random_model(hparams), [1, 2]
        rng = np.random.default_rng(0)
        assert len(generation.generate(prompt, gpt2.params, hparams.n_head, 3, rng)) == 5
        assert generation.generate(tuple(prompt), gpt2.params, hparams.n_head, 0, rng) == prompt == [1, 2]


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_greedy_texts_of_a_batch_are_those_of_hugging_face(hparams: HParams) -> None:
    gpt2 = random_model(hparams)
    prompts = random_prompts(hparams, [1, 3, hparams.n_ctx - 1, 2, hparams.n_ctx // 2])
    made = finish([Row(prompt, greedy, hparams.n_ctx - len(prompt)) for prompt in prompts], gpt2)
    for prompt, ids in zip(prompts, made, strict=True):
        assert prompt + ids == by_hugging_face(gpt2, prompt, hparams.n_ctx)


class TestBatch:
    @pytest.mark.parametrize("lengths", [[3], [1, 6, 2], [4, 4, 4], [1, 1, 6]], ids=str)
    def test_a_row_does_not_depend_on_the_others(self, lengths: list[int]) -> None:
        """Not even if the others end sooner, at different steps."""
        gpt2 = random_model(SHAPES[1])

        def row(i: int, prompt: list[int]) -> Row:
            return Row(prompt, greedy, max_new_tokens=[30, 5, 17][i], eos_token_ids=[7] if i == 2 else [])

        prompts = random_prompts(SHAPES[1], lengths)
        together = [row(i, prompt) for i, prompt in enumerate(prompts)]
        alone = [row(i, prompt) for i, prompt in enumerate(prompts)]
        assert finish(together, gpt2) == [finish([one], gpt2)[0] for one in alone]
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.finish_reason == theirs.finish_reason
            np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=0, atol=1e-12)

    def test_tokens_are_those_of_passes_over_the_whole_text(self) -> None:
        gpt2 = random_model(SHAPES[1])
        prompts = random_prompts(SHAPES[1], [3, 11])
        for prompt, made in zip(prompts, finish([Row(p, greedy, 20) for p in prompts], gpt2), strict=True):
            ids = list(prompt)
            for _ in range(20):
                ids.append(int(gpt2.logits(ids)[-1].argmax()))
            assert ids == prompt + made

    def test_equal_prompts_are_read_once_and_ended_rows_not_at_all(self, passes: list[tuple[int, ...]]) -> None:
        gpt2 = random_model(SHAPES[1])
        rows = [Row(prompt, greedy, n) for prompt, n in [([1, 2, 3], 3), ([4], 1), ([1, 2, 3], 2), ([1, 2, 3], 4)]]
        made = finish(rows, gpt2)
        assert passes == [(2, 3), (3, 1), (2, 1), (1, 1)]
        assert made == [finish([Row(row.tokens[: row.n_prompt], greedy, row.max_new_tokens)], gpt2)[0] for row in rows]

    def test_a_long_prompt_is_read_in_pieces(
        self, passes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prefill, "count_workers", lambda params, at_most: 1)
        gpt2 = random_model(SHAPES[1])
        prompts = random_prompts(SHAPES[1], [30, 4, 17])
        whole = finish([Row(prompt, greedy, 9) for prompt in prompts], gpt2)
        passes.clear()
        with prefill.tokens_at_once(3 * 8):  # of three texts
            assert finish([Row(prompt, greedy, 9) for prompt in prompts], gpt2) == whole
            assert passes == [(3, n_seq) for n_seq in [8, 8, 8, 6, *[1] * 8]]
            assert finish([Row(prompts[0], greedy, 50)], gpt2, slide=True)[0][:9] == whole[0]

    def test_unwanted_log_probabilities_are_not_kept(self) -> None:
        gpt2 = random_model(SHAPES[1])
        rows = [Row([1, 2], greedy, 5, with_log_probabilities=wanted) for wanted in (True, False)]
        assert [len(ids) for ids in finish(rows, gpt2)] == [5, 5]
        assert [len(row.log_probabilities) for row in rows] == [5, 0]

    def test_a_step_gives_the_number_of_rows_that_took_part(self) -> None:
        gpt2 = random_model(SHAPES[1])
        rows = [Row([1], greedy, 3), Row([2], greedy, 1), Row([2], greedy, 0)]
        assert list(generate_batch(rows, gpt2.params, gpt2.hparams.n_head)) == [2, 1, 1]

    def test_there_may_be_nothing_to_do(self) -> None:
        gpt2 = random_model(SHAPES[1])
        assert list(generate_batch([], gpt2.params, gpt2.hparams.n_head)) == []
        assert list(generate_batch([Row([2], greedy, 0)], gpt2.params, gpt2.hparams.n_head)) == []


@pytest.mark.parametrize("hparams", [*SHAPES, SHAPES[1]._replace(n_ctx=1)], ids=str)
def test_the_last_position_of_the_context_predicts_a_token_as_well(hparams: HParams) -> None:
    gpt2, n_ctx = random_model(hparams), hparams.n_ctx
    prompts = random_prompts(hparams, [n_ctx, max(1, n_ctx - 1)])
    made = finish([Row(prompt, greedy, n_ctx + 9) for prompt in prompts], gpt2)
    for prompt, ids in zip(prompts, made, strict=True):
        text = prompt + ids
        assert len(text) == n_ctx + 1
        likeliest = gpt2.logits(text[:-1]).argmax(axis=-1)
        assert ids == likeliest[len(prompt) - 1 :].tolist()


class TestSlide:
    @pytest.mark.parametrize("hparams", [*SHAPES, SHAPES[1]._replace(n_ctx=1), SHAPES[1]._replace(n_ctx=2)], ids=str)
    def test_the_oldest_half_is_dropped_and_the_rest_read_again(self, hparams: HParams) -> None:
        gpt2 = random_model(hparams)
        n_ctx = hparams.n_ctx
        prompts = random_prompts(hparams, [1, max(1, n_ctx - 1), n_ctx, n_ctx + 1, 5 * n_ctx])
        made = finish([Row(prompt, greedy, 3 * n_ctx + 1) for prompt in prompts], gpt2, slide=True)
        for prompt, ids in zip(prompts, made, strict=True):
            context, expected = list(prompt), []
            for _ in range(3 * n_ctx + 1):
                if len(context) > n_ctx:
                    context = context[-(n_ctx - n_ctx // 2) :]
                expected.append(int(gpt2.logits(context)[-1].argmax()))
                context.append(expected[-1])
            assert ids == expected

    def test_the_penalty_counts_tokens_that_were_dropped(self) -> None:
        gpt2 = random_model(SHAPES[0])
        seen = []

        def choose(logits: Array, ids: Sequence[int]) -> int:
            seen.append(list(ids))
            return int(sampling.penalize_repetition(logits, ids, 2.0).argmax())

        (made,) = finish([Row([3, 1, 4], choose, 30)], gpt2, slide=True)
        assert seen == [[3, 1, 4, *made[:n]] for n in range(30)]
