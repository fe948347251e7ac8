"""Speculative decoding: whatever is drafted, the text is that of the loop without a draft."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, in_pytorch, random_model, random_prompts

import numpy_gpt2
from numpy_gpt2 import sampling
from numpy_gpt2.decoding import speculation
from numpy_gpt2.decoding.row import Generation, Row
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.inside.patches import scale, zero
from numpy_gpt2.params import HParams

OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0, "repetition_penalty": 1.5},
    {"temperature": 1.0},
    {"temperature": 0.9, "top_k": 9, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
]


class Guesses:
    """Drafts the tokens of a given text, any number of them; each has a chance to become another one."""

    def __init__(self, text: Sequence[int], chance: float, n_vocab: int, seed: int) -> None:
        self.text, self.chance, self.n_vocab = text, chance, n_vocab
        self.rng = np.random.default_rng(seed)
        self.n_drafted = 0

    def draft(self, row: Row, n_most: int) -> list[int]:
        right = self.text[len(row.tokens) :][: int(self.rng.integers(0, n_most + 1))]
        drafted = [
            token if self.rng.random() < self.chance else int(self.rng.integers(self.n_vocab)) for token in right
        ]
        self.n_drafted += len(drafted)
        return drafted


class Given:
    """Drafts what it is given, then nothing."""

    def __init__(self, *drafts: list[int]) -> None:
        self.drafts = iter(drafts)

    def draft(self, row: Row, n_most: int) -> list[int]:
        return next(self.drafts, [])


def assert_same(made: Row, plain: Row) -> None:
    assert (made.tokens, made.finish_reason) == (plain.tokens, plain.finish_reason)
    np.testing.assert_allclose(made.log_probabilities, plain.log_probabilities, rtol=0, atol=1e-11)


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_the_text_is_that_without_a_draft(hparams: HParams, options: dict[str, Any], slide: bool) -> None:
    """With the same log-probabilities, random numbers and end, wherever in a draft that is."""
    gpt2, n_ctx = random_model(hparams), hparams.n_ctx
    ends, n_drafted = set(), 0
    for seed in range(16):
        (prompt,) = random_prompts(hparams, [1 + seed % (n_ctx + 3 * slide)])
        n_new = [n_ctx // 2, 3 * n_ctx][seed % 2]
        rngs = [np.random.default_rng(seed) for _ in range(3)]
        choose = [partial(sampling.next_token, rng=rng, **options) for rng in rngs]
        (endless,) = finish([Row(prompt, choose[2], n_new)], gpt2, slide)
        eos = endless[-3:-2] if seed % 4 < 2 else []
        plain = Row(prompt, choose[0], n_new, eos)
        finish([plain], gpt2, slide)
        guesses = Guesses([*plain.tokens, *eos], [0.6, 0.95, 1.0][seed % 3], hparams.n_vocab, seed)
        made = Row(prompt, choose[1], n_new, eos, drafter=guesses)
        n_steps = sum(speculation.generate_each([made], gpt2.params, hparams.n_head, slide))
        assert_same(made, plain)
        assert n_steps == len(plain.ids) + (plain.finish_reason == "end_of_text")
        assert rngs[0].random() == rngs[1].random()
        ends.add(plain.finish_reason)
        n_drafted += guesses.n_drafted
    assert n_drafted > 20
    assert ends >= {"end_of_text", "length"} | (set() if slide else {"context"})


def generations(results: Any) -> list[Generation]:
    """The generations in what `GPT2.generate` returns for several prompts."""
    return [each for result in results for each in ([result] if isinstance(result, Generation) else result)]


class TestLookup:
    """`GPT2.generate` with `prompt_lookup_num_tokens`."""

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("hparams", SHAPES, ids=str)
    def test_texts_are_the_same(self, hparams: HParams, options: dict[str, Any]) -> None:
        """Also of several prompts, of repetitive ones, several of each, and beyond the context."""
        gpt2, n_ctx = random_model(hparams), hparams.n_ctx
        prompts = random_prompts(hparams, [1, 4, 2, 4, n_ctx])
        prompts += [(prompt * n_ctx)[: n_ctx // 2] for prompt in prompts[1:3]]
        several: list[dict[str, Any]] = [{}, {"slide": True}, {"num_return_sequences": 2}]
        for more in several:
            given: dict[str, Any] = {"seed": 3, "return_details": True, **options, **more}
            plain = generations(gpt2.generate(prompts, 30, **given))
            made = generations(gpt2.generate(prompts, 30, prompt_lookup_num_tokens=7, **given))
            for ours, theirs in zip(made, plain, strict=True):
                assert (ours.ids, ours.finish_reason) == (theirs.ids, theirs.finish_reason)
                np.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=0, atol=1e-11)

    def test_greedy_text_is_that_of_transformers(self) -> None:
        """Which has the same option."""
        torch = pytest.importorskip("torch")
        gpt2 = random_model(SHAPES[1]._replace(n_ctx=60))  # it drafts beyond max_length
        peer = in_pytorch(gpt2)
        peer.generation_config.eos_token_id = None
        for prompt in random_prompts(SHAPES[1], [2, 5, 9]):
            ids = torch.tensor([prompt])
            (theirs,) = peer.generate(
                ids, attention_mask=torch.ones_like(ids), max_length=40, prompt_lookup_num_tokens=5, do_sample=False
            ).tolist()
            ours = gpt2.generate(
                prompt, max_length=40, prompt_lookup_num_tokens=5, temperature=0, return_details=True
            ).ids
            assert prompt + ours == theirs

    def test_text_that_repeats_itself_takes_few_passes(self, passes: list[tuple[int, ...]]) -> None:
        """Each of them at most the given number of tokens longer than one."""
        gpt2 = random_model(SHAPES[1]._replace(n_ctx=200))
        made = {}
        for n in (None, 3, 31):
            passes.clear()
            made[n] = gpt2.generate(
                [1, 2], 150, temperature=0, prompt_lookup_num_tokens=n, return_details=True, top_k=0
            ).ids
            if n:
                assert len(passes) < [75, 30][n > 3]
                assert max(n_seq for _, n_seq in passes) <= 1 + n
        assert made[None] == made[3] == made[31]

    @pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 4, "temperature": 0.6}], ids=str)
    def test_a_stream_has_the_same_pieces(self, tiny: GPT2, options: dict[str, Any]) -> None:
        prompt = "The king said: the fox is here, the fox is here, the fox is here, the fox"
        steps: list[int] = []
        plain = tiny.stream(prompt, 40, **options)
        made = tiny.stream(prompt, 40, prompt_lookup_num_tokens=15, progress=steps.append, **options)
        assert [*made] == [*plain]
        assert made.finish_reason == plain.finish_reason
        assert steps == [1] * 40

    def test_stop_strings(self, tiny: GPT2) -> None:
        """Wherever one of them ends: inside a draft, and inside a token."""
        prompt = "the fox is here, the fox is here, the fox is here, the fox"
        text = tiny.generate(prompt, 30, temperature=0)
        for start, n in itertools.product(range(1, len(text) - 8, 17), (2, 7)):
            given: dict[str, Any] = {"stop": text[start : start + n], "temperature": 0, "return_details": True}
            plain = tiny.generate(prompt, 30, **given)
            made = tiny.generate(prompt, 30, prompt_lookup_num_tokens=31, **given)
            assert made[:2] == plain[:2]
            assert made.finish_reason == plain.finish_reason == "stop"
            np.testing.assert_allclose(made.log_probabilities, plain.log_probabilities, rtol=1e-3, atol=1e-4)

    def test_a_row_may_be_ended_from_outside(self) -> None:
        gpt2 = random_model(SHAPES[1])
        row = Row([1], lambda logits, ids: 2, 9, drafter=Given([2] * 7))
        for _ in speculation.generate_each([row], gpt2.params, 5):
            if len(row.ids) == 4:
                row.finish_reason = "stop"
        assert row.ids == [2] * 4

    @pytest.mark.parametrize("prompts", [[1, 2, 1, 2, 1, 2], [[1, 2, 1, 2, 1, 2], [3, 4]]], ids=str)
    @pytest.mark.parametrize("steps", [False, True])
    def test_while_a_trace_is_recorded_nothing_is_drafted(self, prompts: Any, steps: bool) -> None:
        """So each step of the trace is a token, as in the plain loop."""
        gpt2 = random_model(SHAPES[1])
        traces = []
        for n in (None, 9):
            with numpy_gpt2.trace(steps=steps) as t:
                gpt2.generate(prompts, 12, temperature=0, prompt_lookup_num_tokens=n, return_details=True)
            traces.append(t)
        assert [*traces[0]] == [*traces[1]]
        for name, array in traces[0].items():
            np.testing.assert_array_equal(array, traces[1][name])

    @pytest.mark.parametrize("prompts", [[1, 2, 1, 2, 1, 2], [[1, 2, 1, 2, 1, 2], [3, 4]]], ids=str)
    def test_while_a_patch_is_active_nothing_is_drafted(self, prompts: Any) -> None:
        """So `step3` is where the third new token is read, as in the plain loop."""
        gpt2 = random_model(SHAPES[1])
        changes = {"step3/h1": scale(2), "h0/attn/a": zero(head=1, position=[2, 7])}
        texts, shapes = [], []
        for n in (None, 9):
            with numpy_gpt2.trace("h0", steps=True) as t, numpy_gpt2.patch(changes):
                made = gpt2.generate(prompts, 12, temperature=0, prompt_lookup_num_tokens=n, return_details=True)
            texts.append(made)
            shapes.append([step.shape for step in t.steps])
        assert texts[0] == texts[1]
        assert shapes[0] == shapes[1]
        assert texts[0] != gpt2.generate(prompts, 12, temperature=0, return_details=True)

    def test_with_an_assistant_nothing_is_drafted_either(self) -> None:
        gpt2, smaller = random_model(SHAPES[1]), random_model(SHAPES[1]._replace(n_layer=1))
        ours = []
        for model in (None, smaller):
            with numpy_gpt2.patch({"h1": scale(0.5)}):
                ours.append(gpt2.generate([1, 2], 9, temperature=0, assistant_model=model, return_details=True))
        assert ours[0] == ours[1]

    def test_a_patch_that_begins_in_the_middle_of_a_text(self, tiny: GPT2) -> None:
        """The steps in the block are those of the loop without drafts."""
        pieces = tiny.stream("the fox, the fox, the fox, the", 20, temperature=0, prompt_lookup_num_tokens=9)
        next(pieces)
        with numpy_gpt2.trace("h0", steps=True) as t, numpy_gpt2.patch({"h3/mlp": scale(0.5)}):
            assert "".join(itertools.islice(pieces, 12))
        assert {array.shape for name, array in t.items() if name != "step0/h0"} == {(1, 1, 256)}

    def test_a_trace_that_begins_in_the_middle_of_a_text(self, tiny: GPT2) -> None:
        pieces = tiny.stream("the fox, the fox, the fox, the", 20, temperature=0, prompt_lookup_num_tokens=9)
        next(pieces)
        with numpy_gpt2.trace("logits", steps=True) as t:
            text = "".join(itertools.islice(pieces, 12))
        assert text
        assert {array.shape for name, array in t.items() if name != "step0/logits"} == {(1, 4096)}

    def test_it_is_said_how_many_were_drafted_and_accepted(self, caplog: pytest.LogCaptureFixture) -> None:
        gpt2 = random_model(SHAPES[1])
        with caplog.at_level(logging.DEBUG, "numpy_gpt2"):
            row = Row([1], lambda logits, ids: 2, 9, drafter=Given([2, 2, 3, 2], [2], []))
            assert sum(speculation.generate_each([row], gpt2.params, 5)) == 9
            speculation.log_drafts([row, Row([1], lambda logits, ids: 2, 9)])
        assert caplog.messages == ["drafted tokens: 5, accepted: 3"]


def test_the_best_length_gives_the_most_tokens_in_the_same_time() -> None:
    """By the formula of the mean, and by trying it."""
    rng = np.random.default_rng(0)
    for chance, cost in itertools.product((0.2, 0.5, 0.8, 0.95, 1.0), (0.0, 0.1, 0.5)):
        rates = {}
        for n in range(32):
            right = (rng.random((5_000, n)) < chance).cumprod(axis=1)  # 1 until the first wrong one
            rates[n] = (1 + right.sum(axis=1).mean()) / (speculation.COSTS[n] + n * cost)
        best = speculation.best_length([chance] * 40, cost)
        assert rates[best] > 0.97 * max(rates.values())


def test_a_draft_is_no_longer_than_it_may_be() -> None:
    assert speculation.best_length([]) == 0
    assert [speculation.best_length([1.0] * n) for n in (1, 2, 7, 31, 100)] == [1, 2, 7, 31, 31]
    assert speculation.best_length([0.0] * 9) == 0
    assert speculation.best_length([1.0] * 31, cost=1.0) == 0
