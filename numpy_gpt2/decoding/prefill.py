"""Prefill: runs the model over any number of tokens, such as those of a prompt.

A long text is read in pieces, each of which continues the past of the piece before. In attention, each token has a
score for every token up to it, in every head: for a long text in one piece, these scores would take much memory, and
half of them would be masked. This is the only place that cuts a prompt. `pipeline.py` reads several pieces at a time.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from .. import model
from ..cache import Past
from ..machine import threads
from ..params import Array, Params
from ..text.padding import pad_right
from . import filling
from .pipeline import OrderError, run_in_pipeline

# Tokens read at once, of all texts together: fewer make slower products, more take more memory.
TOKENS_AT_ONCE = 256

# About as many for each thread where several of them read, each a piece. Fewer are read in one piece, by products on
# all threads. Two cores of an Intel server read 1000 tokens of the 124M model in 0.77 of the time of one piece after
# another, with pieces of 128, 160 or 192 tokens. For 128 tokens, two pieces of 64 took 1.2 times as long as one.
TOKENS_PER_WORKER = 128

# By the profile in docs/performance.md, products take 0.6 of the time of a long prompt on one thread. With n threads,
# it takes 0.6 / n + 0.4 of that time, with n workers 1 / n. So 3 workers beat any number of threads, and 2 do not.
FEWEST_WORKERS = 3

T = TypeVar("T")


class Reading(threading.local):
    """How texts are read, for each thread: a trace or a patch in one thread leaves the others as they are."""

    tokens_at_once: int | None = TOKENS_AT_ONCE


_reading = Reading()


@contextlib.contextmanager
def tokens_at_once(n: int | None) -> Iterator[None]:
    """Within this context, this thread reads texts n tokens at a time; whole, if n is None."""
    before, _reading.tokens_at_once = _reading.tokens_at_once, n
    try:
        yield
    finally:
        _reading.tokens_at_once = before


def reads_whole() -> bool:
    """Whether this thread reads texts whole, as it does where a trace or a patch is active."""
    return _reading.tokens_at_once is None


def embed(ids: Array, params: Params, past: Past | None = None, token_type_ids: Array | None = None) -> Array:
    """`model.embed`, for ids in main memory and models with token types.

    Fine-tuned models may add a third vector to each token: the embedding of a token that says what kind of
    text the token is in, such as who speaks.

    Shapes: `[n_batch, n_seq]`, twice, to `[n_batch, n_seq, n_embd]`.
    Source: for token types, Wolf et al. 2019, "TransferTransfo", section 3.
    """
    x = model.embed(np.asarray(ids, like=params.wte), params, past)
    if token_type_ids is not None:
        x = x + params.wte[np.asarray(token_type_ids, like=params.wte)]
    return x


def read(
    ids: Array, params: Params, n_head: int, past: Past | None = None, token_type_ids: Array | None = None
) -> Array:
    """Reads texts, in pieces: everything that the model does before the output head.

    Shapes: ids and token_type_ids `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    """
    return np.concatenate(run_on_pieces(model.transformer, ids, params, n_head, past, token_type_ids), axis=1)


def run_on_pieces(
    run: Callable[..., T],
    ids: Array,
    params: Params,
    n_head: int,
    past: Past | None = None,
    token_type_ids: Array | None = None,
) -> list[T]:
    """Embeds texts piece by piece, and runs a function with the arguments of `model.transformer` on each piece.

    If that is interrupted, the past is as it was before.

    Shapes: ids and token_type_ids `[n_batch, n_seq]`.

    Returns:
        What the function returns for each piece.
    """
    n_batch, n_seq = ids.shape
    length, n_workers = plan(n_batch, n_seq, params)
    if past is None and n_seq > length:
        past = Past(params, n_head, n_batch, capacity=n_seq)

    def run_piece(start: int, past: Past | None) -> T:
        piece = slice(start, start + length)
        x = embed(ids[:, piece], params, past, None if token_type_ids is None else token_type_ids[:, piece])
        return run(x, params, n_head, past)

    starts = range(0, n_seq, length)
    if past is None:
        return [run_piece(0, past)]
    with lengths_restored(past):
        if n_workers > 1 and len(starts) > 1:
            with contextlib.suppress(OrderError):
                results = run_in_pipeline(run_piece, past, starts, n_workers)
                past.lengths += n_seq
                return results
        return [run_piece(start, past) for start in starts]


def plan(n_batch: int, n_seq: int, params: Params) -> tuple[int, int]:
    """The length of the pieces in which texts are read, and how many threads read at the same time."""
    at_once = _reading.tokens_at_once
    if at_once is None:
        return n_seq, 1
    n_workers = count_workers(params, n_batch * n_seq) if n_seq > 1 else 1
    if n_workers == 1:
        return max(1, at_once // n_batch), 1
    n_each = max(1, round(n_batch * n_seq / n_workers / TOKENS_PER_WORKER))
    return math.ceil(n_seq / (n_workers * n_each)), n_workers


def count_workers(params: Params, n_tokens: int) -> int:
    """How many threads read pieces at the same time: as many as matrix products use, but one for a GPU."""
    n_most = n_tokens // TOKENS_PER_WORKER
    if n_most < 2 or not isinstance(params.wte, np.ndarray):
        return 1
    n_threads = threads.count_threads() or 1
    n_workers = min(n_threads, n_most)
    return n_workers if n_workers >= min(n_threads, FEWEST_WORKERS) else 1


@contextlib.contextmanager
def lengths_restored(past: Past) -> Iterator[None]:
    """Within this context, an exception makes the past forget what it was given."""
    lengths = past.lengths.copy()
    try:
        yield
    except BaseException:
        past.lengths[:] = lengths
        raise


def logits(
    ids: Array, params: Params, n_head: int, past: Past | None = None, token_type_ids: Array | None = None
) -> Array:
    """`model.logits`, for texts that may be long or in main memory, and models with token types.

    Shapes: ids and token_type_ids `[n_batch, n_seq]` to `[n_batch, n_seq, n_vocab]`.
    """
    return model.output_head(read(ids, params, n_head, past, token_type_ids), params)


def read_prompts(prompts: Sequence[Sequence[int]], params: Params, n_head: int, capacity: int) -> tuple[Past, Array]:
    """Reads prompts of any lengths as one batch, padded on the right. Equal prompts are read once, then copied.

    Positions count from the beginning of a text, so padding on the left would shift them. Padding on the
    right does no harm: no token sees what follows it, and each text continues at its own length.

    Returns:
        The past, with room for `capacity` tokens of each text, and for each text the vector from which its next
        token is predicted, `[n_batch, n_embd]`.
    """
    index_of: dict[tuple[int, ...], int] = {}  # of each distinct prompt
    index = [index_of.setdefault(tuple(prompt), len(index_of)) for prompt in prompts]
    ids, lengths, _ = pad_right([*index_of], pad=0)  # [n_distinct, n_seq]
    past = Past(params, n_head, len(ids), capacity)
    read_ends = partial(filling.read_ends, ends=lengths - 1)
    found = {i: x for piece in run_on_pieces(read_ends, ids, params, n_head, past) for i, x in piece.items()}
    past.lengths[:] = lengths
    last = np.stack([found[i] for i in range(len(ids))])
    return (past, last) if len(index_of) == len(prompts) else (past.select(index), last[index])


def reread(past: Past, ids: Sequence[int], params: Params, n_head: int) -> None:
    """Makes the past of one text hold these ids instead."""
    past.lengths[:] = 0
    if ids:
        read(np.array([ids]), params, n_head, past)
