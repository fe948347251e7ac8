"""The gradient of a batch on all cores: each thread has its own texts, and their gradients are added.

A thread goes through one text at a time, from the embeddings to the loss and back, so that its arrays stay in the
cache. So the memory does not depend on the size of the batch: gradients are accumulated text by text. The sums are
always taken in the same order, whichever thread ends first, so the same number of threads gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from .. import model
from ..evaluation import scoring
from ..evaluation.scoring import IGNORED
from ..machine.workers import add_to, for_each_part, run_in_threads
from ..params import Array, Params
from . import agreement
from .forward import NO_DROPOUT, Dropout
from .gradients import EVERYTHING, POSITIONS_AT_ONCE, Wanted, checked_batch, cross_entropy, gradients, is_wanted
from .optimizer import arrays


def batch_gradients(
    ids: Array,
    targets: Array,
    params: Params,
    n_head: int,
    n_threads: int = 1,
    drop: Dropout = NO_DROPOUT,
    sparing: bool = False,
    wanted: Wanted = EVERYTHING,
) -> tuple[float, Params]:
    """The same as `gradients.gradients`, up to rounding, with the texts divided over threads.

    Args:
        n_threads: how many threads; at most one for each text takes part.
        ids, targets, params, n_head, drop, sparing, wanted: as for `gradients`. Each text drops other numbers.

    Raises:
        ValueError: as for `gradients`.
    """
    agreement.check()  # here, since a trace or a patch belongs to the calling thread
    ids, targets = checked_batch(ids, targets, params, n_head)
    lengths = [1 + int(np.max(np.flatnonzero(row != IGNORED), initial=-1)) for row in targets]
    counting = [i for i, length in enumerate(lengths) if length] or [0]
    n_targets = int(np.count_nonzero(targets != IGNORED))

    def of_texts(mine: Sequence[int]) -> tuple[float, Params]:
        losses, total = [], None
        for i in mine:
            text = np.s_[i : i + 1, : lengths[i]]  # what follows the last target changes nothing
            given = ids[text], targets[text], params, n_head, n_targets
            loss, total = gradients(*given, drop.within(i), sparing, wanted, total)
            losses.append(loss)
        assert total is not None
        return sum(losses), total

    n_threads = max(1, min(n_threads, len(counting)))
    (loss, total), *others = run_in_threads([partial(of_texts, counting[k::n_threads]) for k in range(n_threads)])
    for of_thread, grads in others:
        loss += of_thread
        pairs = zip(arrays(total).values(), arrays(grads).values(), strict=True)
        for_each_part(add_to, [pair for pair in pairs if is_wanted(pair[0])], n_threads)
    return loss, total


def bits_per_byte(ids: Array, n_bytes: int, params: Params, n_head: int, n_threads: int = 1) -> float:
    """How well a model predicts a text, in bits per byte, read as by `scoring.score` with a stride of half the context.

    Args:
        ids: the text, `[n_seq]`; the first token is not scored.
        n_bytes: the length of what is scored.
        params, n_head: the model.
        n_threads: how many threads; each reads windows of its own.
    """
    n_ctx = len(params.wpe)
    windows = list(scoring.windows(len(ids), n_ctx, stride=max(1, n_ctx // 2)))

    def loss(begin: int, first: int, end: int) -> float:
        x = model.transformer(model.embed(ids[None, begin : end - 1], params), params, n_head)
        total = 0.0
        for i in range(first, end, POSITIONS_AT_ONCE):
            last = min(i + POSITIONS_AT_ONCE, end)
            logits = model.output_head(x[0, i - 1 - begin : last - 1 - begin], params)
            total += cross_entropy(logits, ids[i:last], n_targets=1)
        return total

    n_threads = max(1, min(n_threads, len(windows)))
    parts = run_in_threads([lambda k=k: [loss(*each) for each in windows[k::n_threads]] for k in range(n_threads)])  # type: ignore[misc]
    return scoring.bits_per_byte(-sum(map(sum, parts)), n_bytes)
