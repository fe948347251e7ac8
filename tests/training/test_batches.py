"""What a step learns from: windows of a text, and whole documents."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numpy_gpt2.evaluation.scoring import IGNORED
from numpy_gpt2.params import Array
from numpy_gpt2.training.batches import random_documents, random_windows, split_documents

END = 0  # stands for <|endoftext|>

documents_of_ids = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def learned(ids: Array, targets: Array) -> list[list[int]]:
    """What each row says: the tokens that are read and, last, the last target."""
    rows = []
    for row, target in zip(ids.tolist(), targets.tolist(), strict=True):
        n = sum(id != IGNORED for id in target)
        assert target[n:] == [IGNORED] * (len(target) - n)
        assert target[: n - 1] == row[1:n]
        rows.append([*row[:n], target[n - 1]])
    return rows


class TestWindows:
    @given(n=st.integers(2, 60), n_seq=st.integers(1, 59), n_batch=st.integers(1, 5), seed=st.integers(0, 2**32))
    def test_each_is_a_piece_of_the_text_and_its_targets_are_the_next_tokens(
        self, n: int, n_seq: int, n_batch: int, seed: int
    ) -> None:
        n_seq = min(n_seq, n - 1)
        text = 100 + np.arange(n)  # so a token says where it is
        ids, targets = random_windows(text, n_batch, n_seq, rng(seed))
        assert ids.shape == targets.shape == (n_batch, n_seq)
        assert ids.min() >= 100
        assert targets.max() < 100 + n
        np.testing.assert_array_equal(targets, ids + 1)
        np.testing.assert_array_equal(ids, ids[:, :1] + np.arange(n_seq))

    @pytest.mark.parametrize(("n", "n_seq"), [(5, 4), (9, 3), (12, 1)])
    def test_every_start_is_possible_and_as_likely(self, n: int, n_seq: int) -> None:
        ids, _ = random_windows(np.arange(n), 4000, n_seq, rng())
        counts = Counter(ids[:, 0].tolist())
        n_starts = n - n_seq
        assert counts.keys() == {*range(n_starts)}
        assert min(counts.values()) > 0.8 * 4000 / n_starts

    def test_the_same_generator_gives_the_same_windows(self) -> None:
        first, again, other = (random_windows(np.arange(1000), 4, 8, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first[0] != other[0]).any()


class TestSplitting:
    @given(st.lists(st.integers(0, 3), max_size=30))
    @example([])
    @example([END])
    @example([END, END, 1])
    def test_what_stands_between_the_ends(self, ids: list[int]) -> None:
        expected: list[list[int]] = [[]]
        for id in ids:
            if id == END:
                expected.append([])
            else:
                expected[-1].append(id)
        found = split_documents(np.array(ids, int), END)
        assert [document.tolist() for document in found] == [document for document in expected if document]

    @given(documents_of_ids, st.booleans(), st.booleans())
    def test_documents_that_were_joined_are_found_again(
        self, documents: list[list[int]], first: bool, last: bool
    ) -> None:
        ids = [END] * first
        for i, document in enumerate(documents):
            ids += [*([END] if i else []), *document]
        ids += [END] * last
        assert [found.tolist() for found in split_documents(np.array(ids), END)] == documents


class TestDocuments:
    @given(documents_of_ids, st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32))
    def test_each_row_is_a_document_between_two_ends_or_a_window_of_one(
        self, documents: list[list[int]], n_seq: int, n_batch: int, seed: int
    ) -> None:
        ids, targets = random_documents([np.array(each) for each in documents], END, n_batch, n_seq, rng(seed))
        assert ids.shape == targets.shape
        assert len(ids) == n_batch
        whole = [[END, *document, END] for document in documents]
        rows = learned(ids, targets)
        assert ids.shape[1] == max(map(len, rows)) - 1  # no longer than is needed
        for row in rows:
            if len(row) <= n_seq:  # it was not cut
                assert row in whole
            else:
                assert len(row) == n_seq + 1
                assert any(row == of[i : i + n_seq + 1] for of in whole for i in range(len(of) - n_seq))

    def test_short_ones_begin_and_end_with_the_end_of_a_text_and_padding_does_not_count(self) -> None:
        documents = [np.array([5]), np.array([6, 7, 8])]
        ids, targets = random_documents(documents, END, 50, 9, rng())
        assert ids.shape == (50, 4)
        assert {(*row, *target) for row, target in zip(ids.tolist(), targets.tolist(), strict=True)} == {
            (*(END, 5, END, END), *(5, END, IGNORED, IGNORED)),
            (*(END, 6, 7, 8), *(6, 7, 8, END)),
        }

    def test_every_window_of_a_long_one_is_possible(self) -> None:
        rows = learned(*random_documents([np.arange(1, 7)], END, 300, 4, rng()))
        whole = [END, 1, 2, 3, 4, 5, 6, END]
        assert {*map(tuple, rows)} == {tuple(whole[i : i + 5]) for i in range(4)}

    def test_one_that_fits_exactly_is_not_cut(self) -> None:
        rows = learned(*random_documents([np.array([5, 6, 7])], END, 20, 4, rng()))
        assert rows == [[END, 5, 6, 7, END]] * 20

    def test_every_document_is_as_likely_whatever_its_length(self) -> None:
        documents = [np.full(1 + 3 * i, i + 1) for i in range(4)]
        ids, _ = random_documents(documents, END, 4000, 30, rng())
        counts = Counter(ids[:, 1].tolist())
        assert counts.keys() == {1, 2, 3, 4}
        assert min(counts.values()) > 800

    def test_the_same_generator_gives_the_same_rows(self) -> None:
        documents = [np.arange(1, 40), np.arange(50, 60)]
        first, again, other = (random_documents(documents, END, 8, 5, rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first[0] != other[0]).any()
