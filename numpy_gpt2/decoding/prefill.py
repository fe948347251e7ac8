"""Prefill: runs the model over any number of tokens, such as those of a prompt.

A long text is read in pieces, each of which continues the past of the piece before. In attention, each token has a
score for every token up to it, in every head: for a long text in one piece, these scores would take much memory, and
half of them would be masked. This is the only place that cuts a prompt.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import model
from ..cache import Past
from ..params import Array, Params
from ..text.padding import pad_right

# Tokens read at once, of all texts together: fewer make slower products, more take more memory.
TOKENS_AT_ONCE = 256


class Reading(threading.local):
    """How texts are read, for each thread: recording a pass in one thread leaves the others as they are."""

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


def is_recorded() -> bool:
    """Whether this thread records a trace, for which texts are read whole."""
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
    run: Callable[..., Any],
    ids: Array,
    params: Params,
    n_head: int,
    past: Past | None = None,
    token_type_ids: Array | None = None,
) -> list[Any]:
    """Embeds texts piece by piece, and runs a function with the arguments of `model.transformer` on each piece.

    If that is interrupted, the past is as it was before.

    Shapes: ids and token_type_ids `[n_batch, n_seq]`.

    Returns:
        What the function returns for each piece.
    """
    n_batch, n_seq = ids.shape
    at_once = _reading.tokens_at_once
    length = n_seq if at_once is None else max(1, at_once // n_batch)
    if past is None and n_seq > length:
        past = Past(params, n_head, n_batch, capacity=n_seq)
    lengths = past and past.lengths.copy()
    results = []
    try:
        for i in range(0, n_seq, length):
            types = None if token_type_ids is None else token_type_ids[:, i : i + length]
            x = embed(ids[:, i : i + length], params, past, types)
            results.append(run(x, params, n_head, past))
    except BaseException:
        if past:
            past.lengths[:] = lengths
        raise
    return results


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
    x = read(ids, params, n_head, past)
    past.lengths[:] = lengths
    last = x[np.arange(len(ids), like=x), np.asarray(lengths - 1, like=x)]
    return (past, last) if len(index_of) == len(prompts) else (past.select(index), last[index])


def reread(past: Past, ids: Sequence[int], params: Params, n_head: int) -> None:
    """Makes the past of one text hold these ids instead."""
    past.lengths[:] = 0
    if ids:
        read(np.array([ids]), params, n_head, past)
