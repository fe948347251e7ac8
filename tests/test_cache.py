"""The past: texts that are continued have the same logits as texts that are read at once."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, random_ids, random_model

from numpy_gpt2 import model
from numpy_gpt2.cache import Past
from numpy_gpt2.params import Array

LIMITS = {"float32": 1e-5, "float64": 1e-11}  # of the largest logit


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 1, 1, 1], [2, 5], [1, 4, 2]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reading_in_pieces_with_a_past_gives_the_same_logits(pieces: list[int], dtype: str) -> None:
    hparams = SHAPES[0]
    gpt2 = random_model(hparams, dtype)
    ids = random_ids(hparams, n_batch=5, n_seq=7)
    past = gpt2.new_past(n_batch=5)
    logits = [gpt2.logits(piece, past) for piece in np.split(ids, np.cumsum(pieces)[:-1], axis=1)]
    assert past.lengths.tolist() == [7] * 5
    whole = gpt2.logits(ids)
    together = np.concatenate(logits, axis=1)
    assert together.dtype == dtype
    limit = LIMITS[dtype] / 10 * np.abs(whole).max()
    np.testing.assert_allclose(together, whole, rtol=0, atol=limit)


def test_a_past_can_be_shortened() -> None:
    gpt2 = random_model(SHAPES[0])
    past = gpt2.new_past()
    gpt2.logits([1, 2, 3, 4], past)
    past.lengths[:] = 2
    np.testing.assert_allclose(gpt2.logits([5, 6], past), gpt2.logits([1, 2, 5, 6])[2:], rtol=0, atol=1e-12)


def test_a_pass_that_fails_leaves_the_past_as_it_was() -> None:
    """The last block has no MLP, so the pass fails when the keys and values of all blocks are already stored."""
    gpt2 = random_model(SHAPES[0])
    past = gpt2.new_past()
    gpt2.logits([1, 2], past)
    broken = gpt2.params._replace(h=(gpt2.params.h[0], gpt2.params.h[1]._replace(mlp=None)))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        model.logits(np.array([[3]]), broken, SHAPES[0].n_head, past)
    assert past.k[:, :, :, 2].all()
    assert past.lengths.tolist() == [2]
    np.testing.assert_allclose(gpt2.logits([4], past), gpt2.logits([1, 2, 4])[2:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("leftover", [0.5, -1e200, 1e200])
def test_what_lies_beyond_the_end_of_a_text_is_never_seen(leftover: float) -> None:
    gpt2 = random_model(SHAPES[1])
    logits = []
    for value in (0, leftover):
        past = gpt2.new_past(2)
        past.k[:] = past.v[:] = value
        gpt2.logits([[1], [2]], past)
        gpt2.logits([3, 4, 5], past.row(0))
        logits.append(gpt2.logits([[6], [7]], past))
    assert np.isfinite(logits[0]).all()
    np.testing.assert_array_equal(logits[0], logits[1])


def test_a_key_that_was_never_written_is_never_seen() -> None:
    gpt2 = random_model(SHAPES[1])
    past = gpt2.new_past(2)
    past.k[:] = np.nan
    gpt2.logits([[1], [2]], past)
    gpt2.logits([3, 4, 5], past.row(0))
    assert np.isfinite(gpt2.logits([[6], [7]], past)).all()


@pytest.mark.parametrize(("asked", "capacity"), [(None, 40), (1, 1), (12, 12), (40, 40), (1000, 40)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_capacity_is_at_most_the_context(asked: int | None, capacity: int, dtype: str) -> None:
    past = Past(random_model(SHAPES[1], dtype).params, n_head=5, n_batch=2, capacity=asked)
    assert past.capacity == capacity
    assert past.k.shape == past.v.shape == (3, 2, 5, capacity, 2)  # [n_layer, n_batch, n_head, capacity, d_head]
    assert past.k.dtype == past.v.dtype == dtype
    assert past.lengths.tolist() == [0, 0]
    assert past.select([1]).capacity == past.row(1).capacity == capacity


def test_positions_follow_the_tokens_read_so_far() -> None:
    past = random_model(SHAPES[1]).new_past(3)
    assert past.positions(2).tolist() == [[0, 1]] * 3
    past.lengths[:] = [4, 0, 7]
    assert past.positions(3).tolist() == [[4, 5, 6], [0, 1, 2], [7, 8, 9]]


@pytest.mark.parametrize("lengths", [[3, 3], [0, 5]], ids=str)
def test_layers_store_new_tokens_behind_those_of_each_text(lengths: list[int]) -> None:
    """In the arrays of the past itself, and in its own block only."""
    past = Past(random_model(SHAPES[1]).params, n_head=5, n_batch=2, capacity=9)
    rng = np.random.default_rng(0)
    past.k[:], past.v[:] = rng.normal(size=(2, *past.k.shape))
    past.lengths[:] = lengths
    before: list[Array] = [past.k.copy(), past.v.copy()]
    layer_pasts = past.layers(n_seq=2)
    assert len(layer_pasts) == 3
    k, v = rng.normal(size=(2, 2, 5, 2, 2))  # each [n_batch, n_head, n_seq, d_head]
    all_k, all_v = layer_pasts[1].append(k, v)
    n_key = max(lengths) + 2
    for given, returned, stored, old in zip((k, v), (all_k, all_v), (past.k, past.v), before, strict=True):
        expected = old.copy()
        for text, length in enumerate(lengths):
            expected[1, text, :, length : length + 2] = given[text]
        np.testing.assert_array_equal(stored, expected)
        np.testing.assert_array_equal(returned, expected[1, :, :, :n_key])
    for layer_past in layer_pasts:
        assert layer_past.positions.tolist() == [[[n, n + 1]] for n in lengths]
        assert layer_past.n_key == n_key
    assert past.lengths.tolist() == lengths  # which model.transformer advances, at the end of the pass


def test_a_row_is_a_view() -> None:
    past = Past(random_model(SHAPES[1]).params, n_head=5, n_batch=3, capacity=9)
    row = past.row(1)
    row.k[:], row.v[:], row.lengths[:] = 1, 2, 3
    assert row.params is past.params
    for array, value in ((past.k, 1), (past.v, 2)):
        assert (array[:, 1] == value).all()
        assert (array[:, [0, 2]] == 0).all()
    assert past.lengths.tolist() == [0, 3, 0]


def test_a_selection_is_a_copy() -> None:
    past = Past(random_model(SHAPES[1]).params, n_head=5, n_batch=3, capacity=9)
    past.k[:], past.v[:] = np.random.default_rng(0).normal(size=(2, *past.k.shape))
    past.lengths[:] = [4, 0, 6]
    chosen = past.select([2, 0, 0])
    assert chosen.params is past.params
    assert chosen.lengths.tolist() == [6, 4, 4]
    for ours, theirs in ((chosen.k, past.k), (chosen.v, past.v)):
        np.testing.assert_array_equal(ours[:, :, :, :6], theirs[:, [2, 0, 0], :, :6])
        assert (ours[:, :, :, 6:] == 0).all()
        assert not np.may_share_memory(ours, theirs)
    assert past.lengths.tolist() == [4, 0, 6]


class TestTextsOfDifferentLengths:
    """Texts of different lengths in one past, each at its own position."""

    HPARAMS = SHAPES[1]
    LENGTHS = (1, 9, 4)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_padded_texts_continue_as_if_each_were_alone(self, dtype: str) -> None:
        gpt2 = random_model(self.HPARAMS, dtype)
        ids = random_ids(self.HPARAMS, 3, 9)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        past.lengths[:] = self.LENGTHS
        more = [random_ids(self.HPARAMS, 3, n_seq, seed=n_seq) for n_seq in (1, 1, 3, 2)]
        logits = np.concatenate([gpt2.logits(piece, past) for piece in more], axis=1)
        assert past.lengths.tolist() == [n + 7 for n in self.LENGTHS]
        for row, length in enumerate(self.LENGTHS):
            text = np.concatenate([ids[row, :length], *(piece[row] for piece in more)])
            alone = gpt2.logits(text)[length:]
            limit = LIMITS[dtype] * np.abs(alone).max()
            np.testing.assert_allclose(logits[row], alone, rtol=0, atol=limit)

    def test_the_padding_token_changes_nothing(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 9)
        padded = np.arange(9) >= np.array(self.LENGTHS)[:, None]
        logits = []
        for pad in (0, 7):
            past = gpt2.new_past(3)
            gpt2.logits(np.where(padded, pad, ids), past)
            past.lengths[:] = self.LENGTHS
            logits.append(gpt2.logits([[1], [2], [3]], past))
        np.testing.assert_array_equal(logits[0], logits[1])

    def test_a_row_continues_in_the_whole(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 5)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        row = past.row(1)
        row.lengths[:] = 2
        gpt2.logits([9, 8, 7, 6], row)
        assert past.lengths.tolist() == [5, 6, 5]
        logits = gpt2.logits([[1], [2], [3]], past)
        for i, text in enumerate([[*ids[0], 1], [*ids[1, :2], 9, 8, 7, 6, 2], [*ids[2], 3]]):
            np.testing.assert_allclose(logits[i, 0], gpt2.logits(text)[-1], rtol=0, atol=1e-11)

    def test_a_selection_continues_by_itself(self) -> None:
        gpt2 = random_model(self.HPARAMS)
        ids = random_ids(self.HPARAMS, 3, 9)
        past = gpt2.new_past(3)
        gpt2.logits(ids, past)
        past.lengths[:] = self.LENGTHS
        chosen = past.select([2, 0, 2])
        logits = gpt2.logits([[1], [2], [3]], chosen)
        assert past.lengths.tolist() == list(self.LENGTHS)
        assert chosen.lengths.tolist() == [5, 2, 5]
        for i, text in enumerate([[*ids[2, :4], 1], [*ids[0, :1], 2], [*ids[2, :4], 3]]):
            np.testing.assert_allclose(logits[i, 0], gpt2.logits(text)[-1], rtol=0, atol=1e-11)
