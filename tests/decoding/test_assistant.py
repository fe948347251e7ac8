"""Drafts from a smaller model: the greedy text, and otherwise the distribution of texts, are those of the model."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, finish, greedy, random_model, random_prompts

from numpy_gpt2 import layers, sampling
from numpy_gpt2.decoding import speculation
from numpy_gpt2.decoding.assistant import Assistant, accept, check_assistant
from numpy_gpt2.decoding.row import Row
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.params import Array, HParams
from numpy_gpt2.tokenizer import Tokenizer


def deviation(counts: Counter[Any], probabilities: dict[Any, float]) -> float:
    """Pearson's chi-square of counts, as the number of its standard deviations above its mean.

    Cells that are expected less than 5 times are counted together. Of counts with these probabilities, it is below 4
    in all but about 1 of 2,000 cases.
    """
    assert counts.keys() <= {cell for cell, p in probabilities.items() if p > 0}
    n = counts.total()
    cells = [(counts[cell], n * p) for cell, p in probabilities.items() if n * p >= 5]
    rest = n - sum(count for count, _ in cells), n - sum(expected for _, expected in cells)
    cells += [rest] if rest[1] >= 5 else []
    freedom = len(cells) - 1
    return (sum((count - expected) ** 2 / expected for count, expected in cells) - freedom) / math.sqrt(2 * freedom)


class TestAccept:
    @staticmethod
    def draws(p: Array, q: Array, drawn_from: Array, n: int = 20_000) -> float:
        """How far accepted and redrawn tokens are from p, if the drafts are drawn from another distribution than q."""
        rng = np.random.default_rng(0)
        drafts = rng.choice(len(q), p=drawn_from, size=n).tolist()
        return deviation(Counter(accept(draft, p, q, rng) for draft in drafts), dict(enumerate(p.tolist())))

    @pytest.mark.parametrize("seed", range(6))
    def test_tokens_are_distributed_as_those_of_the_model(self, seed: int) -> None:
        """Also if one of the distributions rules out tokens of the other."""
        rng = np.random.default_rng(seed)
        p, q = rng.dirichlet([0.5] * 8, size=2)
        if seed % 2:
            p[:3], q[2:5] = 0, 0
            p, q = p / p.sum(), q / q.sum()
        assert self.draws(p, q, drawn_from=q) < 4

    def test_the_draft_must_have_been_drawn_from_q(self) -> None:
        p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
        assert self.draws(p, q, drawn_from=q) < 4
        assert self.draws(p, q, drawn_from=np.array([0.0, 0.0, 1.0])) > 20

    def test_equal_distributions_accept_everything(self) -> None:
        p = np.random.default_rng(0).dirichlet([1] * 9)
        rng = np.random.default_rng(1)
        assert all(accept(token, p, p, rng) == token for token in range(9) for _ in range(100))

    def test_rounding_leaves_something_to_draw_from(self) -> None:
        """If p and q differ by rounding, p may be less where the draft is, and nowhere more."""
        p, q = np.array([0.5, 0.5 - 1e-9]), np.array([0.5, 0.5])

        class Never(np.random.Generator):
            def random(self) -> float:  # type: ignore[override]
                return 1 - 2**-53

        assert accept(1, p, q, Never(np.random.PCG64())) in (0, 1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes drafts as long as they may be, up to a number of tokens, whatever was accepted."""

    def up_to(n: int) -> None:
        monkeypatch.setattr(speculation, "best_length", lambda chances, cost=0.0: min(n, len(chances)))

    up_to(3)
    return up_to


# Two models that are only tables: the logits after each token. What is likely for one is unlikely for the other.
N_VOCAB = 4
TABLE = np.random.default_rng(5).normal(size=(N_VOCAB, N_VOCAB))
HOSTILE = -TABLE

SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 2},
    {"top_p": 0.6},
    {"min_p": 0.4},
    {"repetition_penalty": 2.5},
    {"temperature": 0.8, "top_k": 3, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.5},
]


class Table(Assistant):
    """An assistant whose logits come from a table."""

    def _logits(self, context: list[int]) -> Array:
        return HOSTILE[context[-1]]


class Greedy(Table):
    """Wrong: drafts the likeliest token, as if it had been drawn. So did transformers (issue 32867)."""

    def _draw(self, logits: Array, ids: list[int]) -> int:
        super()._draw(logits, ids)
        return int(self._drawn_from[len(ids)].argmax())


class Unprocessed(Table):
    """Wrong: takes the probabilities before the options were applied. So did transformers (issue 47932)."""

    def _draw(self, logits: Array, ids: list[int]) -> int:
        token = super()._draw(logits, ids)
        self._drawn_from[len(ids)] = layers.softmax(logits)
        return token


def continue_by_table(kind: type[Table], options: dict[str, Any], n: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A text after token 0, as `speculation.generate_one` makes it."""
    small = random_model(HParams(N_VOCAB, 9, 2, 1, 1))
    assistant = kind(small, small.hparams, rng, options)
    row = Row([0], assistant.choose, n, drafter=assistant, with_log_probabilities=False)
    draft: list[int] = []
    while not row.finish_reason:
        for _ in speculation.accept(row, TABLE[[row.tokens[-1], *draft]], draft):
            pass
        draft = assistant.draft(row, speculation.room(row, 99))
    return tuple(row.ids)


def joint(logits: Callable[[list[int]], Array], prompt: list[int], n: int, options: dict[str, Any]) -> dict[Any, float]:
    """The probability of each continuation by n tokens, computed token by token."""

    def continuations(text: list[int], probability: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if len(text) == len(prompt) + n:
            yield tuple(text[len(prompt) :]), probability
            return
        for token, p in enumerate(layers.softmax(sampling.adjust(logits(text), text, **options))):
            yield from continuations([*text, token], probability * float(p))

    return dict(continuations(prompt, 1.0))


class TestDistribution:
    @staticmethod
    def deviation_of(kind: type[Table], options: dict[str, Any], n: int = 2500) -> float:
        rng = np.random.default_rng(0)
        counts = Counter(continue_by_table(kind, options, 3, rng) for _ in range(n))
        expected = joint(lambda text: TABLE[text[-1]], [0], 3, options)
        possible = {cell: p for cell, p in expected.items() if p > 0}
        return deviation(counts, possible) if counts.keys() <= possible.keys() else math.inf

    @pytest.mark.parametrize("options", SAMPLING, ids=str)
    def test_texts_are_distributed_as_those_of_the_model(
        self, options: dict[str, Any], always: Callable[[int], None]
    ) -> None:
        assert self.deviation_of(Table, options) < 4

    @pytest.mark.parametrize(
        ("kind", "options"),
        [(Greedy, {}), *((Unprocessed, options) for options in SAMPLING[1:])],
    )
    def test_a_wrong_q_is_noticed(
        self, kind: type[Table], options: dict[str, Any], always: Callable[[int], None]
    ) -> None:
        assert self.deviation_of(kind, options) > 7

    def test_of_real_models(self, always: Callable[[int], None]) -> None:
        """From end to end, with a random model as assistant of another."""
        hparams = HParams(n_vocab=4, n_ctx=8, n_embd=4, n_head=1, n_layer=1)
        gpt2, assistant = random_model(hparams), random_model(hparams, seed=1)
        options: dict[str, Any] = {"temperature": 0.7, "top_k": 3, "repetition_penalty": 1.3}
        made = gpt2.generate(
            [2, 1], 3, num_return_sequences=800, assistant_model=assistant, return_details=True, seed=0, **options
        )
        expected = joint(lambda text: gpt2.logits(text)[-1], [2, 1], 3, options)
        assert deviation(Counter(tuple(each.ids) for each in made), expected) < 4


@pytest.mark.parametrize("slide", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_greedy_text_is_that_of_the_model(
    hparams: HParams, penalty: float, slide: bool, always: Callable[[int], None]
) -> None:
    """With another random model, with the model itself, and with a context of another size."""
    gpt2 = random_model(hparams)
    for assistant in (gpt2, random_model(hparams, seed=1), random_model(hparams._replace(n_ctx=5, n_layer=1), seed=2)):
        for prompt in random_prompts(hparams, [1, 4, hparams.n_ctx]):
            given: dict[str, Any] = {"temperature": 0, "repetition_penalty": penalty, "slide": slide}
            plain = gpt2.generate(prompt, 50, return_details=True, **given)
            made = gpt2.generate(prompt, 50, return_details=True, assistant_model=assistant, **given)
            assert (made.ids, made.finish_reason) == (plain.ids, plain.finish_reason)
            np.testing.assert_allclose(made.log_probabilities, plain.log_probabilities, rtol=0, atol=1e-11)


def start(gpt2: GPT2, assistant: GPT2, n: int, **options: float) -> tuple[Row, Assistant]:
    drafter = Assistant(assistant, gpt2.hparams, np.random.default_rng(0), options)
    return Row([1, 2], drafter.choose, n, drafter=drafter), drafter


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.2, "top_k": 6}], ids=str)
def test_a_model_that_assists_itself_is_always_right(options: dict[str, Any], always: Callable[[int], None]) -> None:
    """So what it has read is the text: also after a draft that was accepted only in part, and beyond the context."""
    gpt2 = random_model(SHAPES[1])
    row, assistant = start(gpt2, gpt2, 100, **options)
    for n_tokens, _ in enumerate(speculation.generate_each([row], gpt2.params, 5, slide=True)):
        always(n_tokens % 4)
    assert len(row.ids) == 100
    assert assistant._chance > 0.9


def test_a_context_that_slides_may_be_one_that_was_read(always: Callable[[int], None]) -> None:
    """The text of one token again and again: its newest half is also its beginning."""
    gpt2 = random_model(SHAPES[1])
    row, assistant = start(gpt2, gpt2, 100, temperature=0)
    row.tokens[:] = [2] * 41
    assistant._logits(row.tokens[:40])
    assert row.slide_or_end(40, slide=True)
    expected = Row(row.context, greedy, 3)
    finish([expected], gpt2)
    assert assistant.draft(row, 3) == expected.ids


def test_drafts_stop_where_the_assistants_context_ends(always: Callable[[int], None]) -> None:
    """Its last position predicts one more token."""
    gpt2 = random_model(SHAPES[1])
    row, assistant = start(gpt2, random_model(SHAPES[1]._replace(n_ctx=5)), 30, temperature=0)
    for n_tokens, n_drafted in ((2, 3), (4, 2), (5, 1), (6, 0), (20, 0)):
        row.tokens[:] = random_prompts(SHAPES[1], [n_tokens])[0]
        assert len(assistant.draft(row, 9)) == n_drafted


def test_a_bad_assistant_is_hardly_ever_asked() -> None:
    """And a good one nearly always."""
    gpt2 = random_model(SHAPES[1]._replace(n_ctx=300))
    hostile = random_model(gpt2.hparams._replace(n_layer=1), seed=3)
    asked = {}
    for name, assistant in (("good", gpt2), ("bad", hostile)):
        row, drafter = start(gpt2, assistant, 250, temperature=0)
        drafter._cost = 0.1
        lengths = []
        while len(row.ids) < 250:
            draft = drafter.draft(row, 9)
            logits = gpt2.logits([*row.tokens, *draft])[len(row.tokens) - 1 :]
            for _ in speculation.accept(row, logits, draft):
                pass
            lengths.append(len(draft))
        asked[name] = sum(map(bool, lengths)) / len(lengths)
    assert asked["good"] > 0.95
    assert asked["bad"] < 0.1


def test_a_good_assistant_is_asked_even_if_it_is_slow() -> None:
    """As gpt2 is for gpt2-medium."""
    gpt2 = random_model(SHAPES[1])
    row, drafter = start(gpt2, gpt2, 30, temperature=0)
    drafter._cost = 0.35
    n_drafted = 0
    while len(row.ids) < 10:
        draft = drafter.draft(row, 9)
        n_drafted += len(draft)
        for _ in speculation.accept(row, gpt2.logits([*row.tokens, *draft])[len(row.tokens) - 1 :], draft):
            pass
    assert n_drafted > 5


def test_an_ended_text_keeps_no_past_of_its_assistant(always: Callable[[int], None]) -> None:
    gpt2 = random_model(SHAPES[1])
    rows, pasts = [], []
    for _ in range(3):
        row, assistant = start(gpt2, random_model(SHAPES[1]._replace(n_layer=1)), 5)
        rows.append(row)
        pasts.append(weakref.ref(assistant._past))
        del row, assistant
    for _ in speculation.generate_each(rows, gpt2.params, gpt2.hparams.n_head):
        assert [past() is None for past in pasts] == [bool(row.finish_reason) and row.drafter is None for row in rows]
    assert [past() for past in pasts] == [None] * 3


def test_the_cost_of_an_assistant_is_its_share_of_the_weights() -> None:
    """With one as large as the model, nothing is drafted."""
    gpt2 = random_model(SHAPES[1])
    row, drafter = start(gpt2, gpt2, 30)
    assert drafter._cost == 1
    assert drafter.draft(row, 9) == []
    assert start(gpt2, random_model(SHAPES[1]._replace(n_layer=1)), 30)[1]._cost < 0.5


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 1}], ids=str)
def test_an_assistant_in_another_precision(options: dict[str, Any], always: Callable[[int], None]) -> None:
    gpt2, small = random_model(SHAPES[1]), random_model(SHAPES[1]._replace(n_layer=1), "float32")
    made = gpt2.generate([1, 2], 20, assistant_model=small, return_details=True, **options)
    assert len(made.ids) == 20
    again = gpt2.generate([1, 2], 20, assistant_model=small, return_details=True, **options)
    assert made == again
    if "seed" not in options:
        assert made.ids == finish([Row([1, 2], greedy, 20)], gpt2)[0]


def test_a_stream_is_the_text(tiny: GPT2, always: Callable[[int], None]) -> None:
    for options in ({"temperature": 0}, {"seed": 3}):
        given: dict[str, Any] = {"assistant_model": tiny, **options}
        assert "".join(tiny.stream("The king", 20, **given)) == tiny.generate("The king", 20, **given)


class TestVocabulary:
    def test_another_number_of_tokens_is_refused(self, tiny: GPT2) -> None:
        other = random_model(SHAPES[0])
        with pytest.raises(ValueError, match="same vocabulary as the model, but it knows 300 token ids, and the model"):
            tiny.generate("a", 3, assistant_model=other)
        with pytest.raises(ValueError, match="same vocabulary"):
            tiny.stream("a", 3, assistant_model=other)

    def test_other_tokens_are_refused(self, tiny: GPT2) -> None:
        assert tiny.tokenizer
        swapped = {**tiny.tokenizer.encoder, "a": tiny.tokenizer.encoder["b"], "b": tiny.tokenizer.encoder["a"]}
        other = GPT2(tiny.hparams, tiny.params, Tokenizer(swapped, [*tiny.tokenizer.ranks]), "other")
        with pytest.raises(ValueError, match="same vocabulary as the model, but some ids stand for other tokens"):
            tiny.generate("a", 3, assistant_model=other)

    def test_a_model_that_knows_only_ids_may_assist(self, tiny: GPT2) -> None:
        check_assistant(GPT2(tiny.hparams, tiny.params, None, "ids"), tiny.hparams, tiny.tokenizer)


def test_parameters_that_are_not_finite_end_in_a_sentence(always: Callable[[int], None]) -> None:
    gpt2, broken = random_model(SHAPES[1]), random_model(SHAPES[1])
    broken.params.wte[:] = math.nan
    for model, assistant in itertools.permutations([gpt2, broken]):
        with pytest.raises(ValueError, match="logits are not finite numbers"):
            model.generate([1, 2], 9, assistant_model=assistant, return_details=True)
