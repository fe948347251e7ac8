"""Reading long texts in pieces, and prompts of different lengths as one batch: as if each were read at once."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, random_ids, random_model, random_prompts

from numpy_gpt2 import model
from numpy_gpt2.cache import LayerPast, Past
from numpy_gpt2.decoding import prefill
from numpy_gpt2.params import Array, HParams

HPARAMS = SHAPES[1]
LIMITS = {"float32": 1e-5, "float64": 1e-12}


class RecordedPast(Past):
    """A past that notes how many tokens of each text are read in each pass."""

    def layers(self, n_seq: int) -> list[LayerPast]:
        self.pieces = [*getattr(self, "pieces", []), n_seq]
        return super().layers(n_seq)


def pieces_of(n_seq: int, n_batch: int = 1) -> list[int]:
    """The lengths of the pieces in which texts of n_seq tokens are read."""
    hparams = HParams(n_vocab=11, n_ctx=n_seq, n_embd=2, n_head=1, n_layer=1)
    params = random_model(hparams).params
    past = RecordedPast(params, 1, n_batch)
    prefill.read(random_ids(hparams, n_batch, n_seq), params, 1, past)
    return past.pieces


def types_of(ids: Array, with_types: bool) -> Array | None:
    return random_ids(HPARAMS, len(ids), ids.shape[1], seed=1) if with_types else None


@pytest.mark.parametrize("at_once", [1, 3, 7, 1000, None])
@pytest.mark.parametrize("n_batch", [1, 3])
@pytest.mark.parametrize("with_types", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
class TestPiecesOfAnySize:
    """Against one pass of `model`, to which nobody gives more than it can read at once."""

    def test_vectors_and_past(self, at_once: int | None, n_batch: int, with_types: bool, dtype: str) -> None:
        params, n_head = random_model(HPARAMS, dtype).params, HPARAMS.n_head
        ids = random_ids(HPARAMS, n_batch, 20)
        types = types_of(ids, with_types)
        ours, theirs = (Past(params, n_head, n_batch) for _ in range(2))
        x = model.embed(ids, params)
        if types is not None:
            x = x + params.wte[types]
        expected = model.transformer(x, params, n_head, theirs)
        limit = LIMITS[dtype] * np.abs(expected).max()
        with prefill.tokens_at_once(at_once):
            for past in (ours, None):
                x = prefill.read(ids, params, n_head, past, types)
                assert x.dtype == dtype
                np.testing.assert_allclose(x, expected, rtol=0, atol=limit)
        assert ours.lengths.tolist() == theirs.lengths.tolist() == [20] * n_batch
        np.testing.assert_allclose(ours.k, theirs.k, rtol=0, atol=LIMITS[dtype] * np.abs(theirs.k).max())
        np.testing.assert_allclose(ours.v, theirs.v, rtol=0, atol=LIMITS[dtype] * np.abs(theirs.v).max())

    def test_logits(self, at_once: int | None, n_batch: int, with_types: bool, dtype: str) -> None:
        gpt2 = random_model(HPARAMS, dtype)
        ids = random_ids(HPARAMS, n_batch, 20)
        types = types_of(ids, with_types)
        with prefill.tokens_at_once(None):
            expected = prefill.logits(ids, gpt2.params, HPARAMS.n_head, None, types)
        if types is None:
            np.testing.assert_array_equal(expected, model.logits(ids, gpt2.params, HPARAMS.n_head))
        with prefill.tokens_at_once(at_once):
            made = [prefill.logits(ids, gpt2.params, HPARAMS.n_head, None, types), gpt2.logits(ids, None, types)]
            past = gpt2.new_past(n_batch)
            first, rest = ids[:, :6], ids[:, 6:]
            of_first, of_rest = (None, None) if types is None else (types[:, :6], types[:, 6:])
            made.append(np.concatenate([gpt2.logits(first, past, of_first), gpt2.logits(rest, past, of_rest)], axis=1))
        for logits in made:
            np.testing.assert_allclose(logits, expected, rtol=0, atol=LIMITS[dtype] * np.abs(expected).max())


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are read one after another, as where matrix products use one thread; `test_pipeline` tests the rest."""
    monkeypatch.setattr(prefill, "count_workers", lambda params, at_most: 1)


@pytest.mark.usefixtures("one_worker")
class TestTokensAtOnce:
    def test_by_default(self) -> None:
        assert prefill.TOKENS_AT_ONCE == 256
        assert pieces_of(256) == [256]
        assert pieces_of(600) == [256, 256, 88]

    def test_tokens_of_all_texts_count_together(self) -> None:
        assert pieces_of(200, n_batch=3) == [85, 85, 30]
        with prefill.tokens_at_once(24):
            assert pieces_of(30, n_batch=3) == [8, 8, 8, 6]
        with prefill.tokens_at_once(2):
            assert pieces_of(3, n_batch=3) == [1, 1, 1]

    @pytest.mark.parametrize(("n", "pieces"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5]), (None, [5])])
    def test_within_a_context(self, n: int | None, pieces: list[int]) -> None:
        with prefill.tokens_at_once(n):
            assert pieces_of(5) == pieces
        assert pieces_of(5) == [5]

    def test_none_reads_whole_texts_of_any_length(self) -> None:
        with prefill.tokens_at_once(None):
            assert pieces_of(600, n_batch=2) == [600]

    def test_contexts_nest(self) -> None:
        with prefill.tokens_at_once(2):
            with prefill.tokens_at_once(3):
                assert pieces_of(5) == [3, 2]
            assert pieces_of(5) == [2, 2, 1]
        assert pieces_of(600) == [256, 256, 88]

    def test_an_exception_restores_the_default(self) -> None:
        with pytest.raises(KeyboardInterrupt), prefill.tokens_at_once(1):
            raise KeyboardInterrupt
        assert pieces_of(600) == [256, 256, 88]

    def test_other_threads_are_not_affected(self) -> None:
        elsewhere: list[list[int]] = []
        with prefill.tokens_at_once(2):
            thread = threading.Thread(target=lambda: elsewhere.append(pieces_of(300)))
            thread.start()
            thread.join()
            assert pieces_of(5) == [2, 2, 1]
        assert elsewhere == [[256, 44]]

    def test_all_tasks_of_the_thread_are_affected(self) -> None:
        """Also those that were made before, whose contextvars are a copy."""

        async def read() -> list[int]:
            return pieces_of(5)

        async def read_within_a_context() -> list[int]:
            task = asyncio.create_task(read())
            with prefill.tokens_at_once(2):
                return await task

        assert asyncio.run(read_within_a_context()) == [2, 2, 1]


@pytest.mark.parametrize("reader", ["logits", "logits with a past", "hidden_states"])
def test_no_array_of_all_scores_is_made_for_long_texts(reader: str) -> None:
    """With the context and the heads of the 124M model, but narrow, so that scores are most of the memory."""
    hparams = HParams(n_vocab=11, n_ctx=1024, n_embd=12, n_head=12, n_layer=1)
    gpt2 = random_model(hparams, "float32")
    ids = random_ids(hparams, 4, 1024)
    tracemalloc.start()
    if reader == "hidden_states":
        gpt2.hidden_states(ids)
    else:
        gpt2.logits(ids, gpt2.new_past(4) if reader == "logits with a past" else None)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    all_scores = 4 * 4 * 12 * 1024 * 1024  # bytes
    assert most < all_scores / 4


def test_token_types_beside_a_past() -> None:
    gpt2 = random_model(HPARAMS)
    ids, types = random_ids(HPARAMS, 2, 9), random_ids(HPARAMS, 2, 9, seed=1)
    past = gpt2.new_past(2)
    logits = [gpt2.logits(ids[:, i:j], past, types[:, i:j]) for i, j in ((0, 4), (4, 5), (5, 9))]
    whole = gpt2.logits(ids, token_type_ids=types)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), whole, rtol=0, atol=1e-11)
    assert np.abs(whole - gpt2.logits(ids)).max() > 0.1


class TestReadPrompts:
    @pytest.mark.parametrize("lengths", [[1], [3, 9, 1], [4, 4]], ids=str)
    def test_each_prompt_is_read_as_if_it_were_alone(self, lengths: list[int]) -> None:
        params, n_head = random_model(HPARAMS).params, HPARAMS.n_head
        prompts = random_prompts(HPARAMS, lengths)
        past, last = prefill.read_prompts(prompts, params, n_head, capacity=12)
        assert past.capacity == 12
        assert past.lengths.tolist() == lengths
        assert last.shape == (len(prompts), HPARAMS.n_embd)
        for i, prompt in enumerate(prompts):
            alone = Past(params, n_head)
            x = prefill.read(np.array([prompt]), params, n_head, alone)
            np.testing.assert_allclose(last[i], x[0, -1], rtol=0, atol=1e-12)
            for ours, theirs in ((past.k, alone.k), (past.v, alone.v)):
                np.testing.assert_allclose(
                    ours[:, i, :, : len(prompt)], theirs[:, 0, :, : len(prompt)], rtol=0, atol=1e-12
                )

    def test_equal_prompts_have_equal_pasts_of_their_own(self) -> None:
        params, n_head = random_model(HPARAMS).params, HPARAMS.n_head
        past, last = prefill.read_prompts([[1, 2, 3], [4], [1, 2, 3]], params, n_head, capacity=12)
        assert past.lengths.tolist() == [3, 1, 3]
        np.testing.assert_array_equal(last[0], last[2])
        np.testing.assert_array_equal(past.k[:, 0], past.k[:, 2])
        prefill.read(np.array([[5]]), params, n_head, past.row(0))
        assert past.lengths.tolist() == [4, 1, 3]
        assert not past.k[:, 2, :, 3].any()


@pytest.mark.parametrize("ids", [[7, 1, 5], []])
def test_a_text_may_be_replaced_in_its_past(ids: list[int]) -> None:
    gpt2 = random_model(HPARAMS)
    past = gpt2.new_past(2)
    gpt2.logits([[1, 2, 3, 4], [5, 6, 7, 8]], past)
    prefill.reread(past.row(1), ids, gpt2.params, HPARAMS.n_head)
    assert past.lengths.tolist() == [4, len(ids)]
    logits = gpt2.logits([[9], [10]], past)
    for i, text in enumerate([[1, 2, 3, 4, 9], [*ids, 10]]):
        np.testing.assert_allclose(logits[i, 0], gpt2.logits(text)[-1], rtol=0, atol=1e-11)


def test_reading_that_is_interrupted_between_pieces_leaves_the_past_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    gpt2 = random_model(SHAPES[1])
    past = gpt2.new_past()
    gpt2.logits([1, 2], past)
    transformer, passes = model.transformer, []

    def interrupted(*args: Any) -> Any:
        passes.append(args)
        if len(passes) == 2:
            raise KeyboardInterrupt
        return transformer(*args)

    monkeypatch.setattr(model, "transformer", interrupted)
    with prefill.tokens_at_once(3), pytest.raises(KeyboardInterrupt):
        gpt2.logits([3, 4, 5, 6, 7], past)
    assert past.lengths.tolist() == [2]
    monkeypatch.undo()
    np.testing.assert_allclose(gpt2.logits([3, 4], past), gpt2.logits([1, 2, 3, 4])[2:], rtol=0, atol=1e-11)
