"""What one step learns from: a few pieces of the text, chosen at random.

A batch is two arrays `[n_batch, n_seq]`: the ids that the model reads, and the targets, the token that follows each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..evaluation.scoring import IGNORED
from ..params import Array


def chooser(
    ids: Array, n_batch: int, n_seq: int, end_of_text: int | None
) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """A function that chooses a batch, given a generator of random numbers.

    Args:
        ids: the text, `[n]`.
        n_batch, n_seq: the shape of the batch.
        end_of_text: the id that separates documents, to learn from those; None for windows.

    Raises:
        ValueError: the text is too short for a window, or has no document.
    """
    if end_of_text is None:
        if len(ids) <= n_seq:
            raise ValueError(
                f"the text has {len(ids)} tokens, and a window takes {n_seq + 1}, with the token that follows: give a "
                "longer text, or a smaller window"
            )
        return partial(random_windows, ids, n_batch, n_seq)
    documents = split_documents(ids, end_of_text)
    if not documents:
        raise ValueError("there is no document in the text: it has nothing but <|endoftext|>")
    return partial(random_documents, documents, end_of_text, n_batch, n_seq)


def random_windows(ids: Array, n_batch: int, n_seq: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Windows of n_seq tokens that begin anywhere in a text.

    Args:
        ids: the text, `[n]`, where n is more than n_seq.
        n_batch, n_seq: the shape of the batch.
        rng: decides where they begin.

    >>> random_windows(np.arange(100), 2, 3, np.random.default_rng(0))
    (array([[82, 83, 84],
           [61, 62, 63]]), array([[83, 84, 85],
           [62, 63, 64]]))
    """
    starts = rng.integers(0, len(ids) - n_seq, n_batch)
    windows = ids[starts[:, None] + np.arange(n_seq + 1)]
    return windows[:, :-1], windows[:, 1:]


def split_documents(ids: Array, end_of_text: int) -> list[Array]:
    """The documents of a text, in which the id end_of_text separates them; empty ones are left out.

    >>> split_documents(np.array([5, 6, 0, 7, 0]), end_of_text=0)
    [array([5, 6]), array([7])]
    """
    first, *others = np.split(ids, np.flatnonzero(ids == end_of_text))
    return [part for part in (first, *(other[1:] for other in others)) if len(part)]


def random_documents(
    documents: list[Array], end_of_text: int, n_batch: int, n_seq: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Whole documents, each in a row of its own, after end_of_text; or a window of one that is too long.

    Each document is chosen as often as any other, be it long or short. So the model learns how a text begins, and where
    it ends. The rows are padded on the right, where targets do not count.

    Args:
        documents: the documents, at least one, as `split_documents` gives them.
        end_of_text: the id before and after each document.
        n_batch, n_seq: the shape of the batch; the rows are no longer than the longest document needs.
        rng: chooses the documents.

    >>> random_documents([np.array([5, 6])], 0, 1, 8, np.random.default_rng(0))
    (array([[0, 5, 6]]), array([[5, 6, 0]]))
    """
    rows = []
    for i in rng.integers(0, len(documents), n_batch):
        row = np.concatenate([[end_of_text], documents[i], [end_of_text]])
        start = rng.integers(0, max(1, len(row) - n_seq))
        rows.append(row[start : start + n_seq + 1])
    longest = max(map(len, rows)) - 1
    ids = np.full((n_batch, longest), end_of_text)
    targets = np.full((n_batch, longest), IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row) - 1], targets[i, : len(row) - 1] = row[:-1], row[1:]
    return ids, targets
