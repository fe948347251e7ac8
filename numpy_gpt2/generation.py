"""The autoregressive loop: predict a token, append it, repeat. First for one text, then for a batch with a past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from . import model, sampling
from .decoding import prefill
from .decoding.row import Row
from .params import Params


def generate(
    ids: Sequence[int],
    params: Params,
    n_head: int,
    max_new_tokens: int,
    rng: np.random.Generator,
    **options: float,
) -> list[int]:
    """Continues one text, and reads its whole context again for each new token.

    Args:
        ids: the prompt, at least one token.
        params, n_head: the model.
        max_new_tokens: how many tokens to add.
        rng: where the randomness comes from.
        options: those of `sampling.OPTIONS`, such as temperature=0 for the likeliest token each time; one that is
            not given is off.

    Returns:
        The ids of the prompt and the continuation.
    """
    ids = list(ids)
    n_ctx = len(params.wpe)
    for _ in range(max_new_tokens):
        context = np.array([ids[-n_ctx:]])  # [1, n_seq]: the newest tokens, as many as the model can see
        logits = model.logits(context, params, n_head)[0, -1]  # [n_vocab]: scores of what follows the last token
        ids.append(sampling.next_token(logits, rng, ids, **options))
    return ids


def generate_batch(rows: Sequence[Row], params: Params, n_head: int, slide: bool = False) -> Iterator[int]:
    """Continues several texts, by one token each at every step, until all have ended.

    The prompts are read once. Then each step reads only the new tokens, since the past has the rest: after a
    step, it holds all tokens of a context but the newest. So a text may have one token more than the context holds:
    the last position predicts it. A row that has ended no longer takes part.

    Args:
        rows: the texts, which grow.
        params, n_head: the model.
        slide: what to do with a text that fills the context: True keeps the newest half of the context, reads
            it again as if the text began there, and goes on; False ends the text.

    Yields:
        After each step, the number of rows that took part.
    """
    n_ctx = len(params.wpe)
    for row in rows:
        row.slide_or_end(n_ctx, slide)
    rows = [row for row in rows if not row.finish_reason]
    if not rows:
        return
    capacity = min(n_ctx, max(row.n_prompt + row.max_new_tokens for row in rows))
    past, x = prefill.read_prompts([row.context for row in rows], params, n_head, capacity)
    while True:
        for row, logits in zip(rows, model.output_head(x, params), strict=True):
            row.grow(logits)
        yield len(rows)
        for i, row in enumerate(rows):
            if row.slide_or_end(n_ctx, slide):
                prefill.reread(past.row(i), row.context[:-1], params, n_head)  # the next step reads the newest token
        growing = [i for i, row in enumerate(rows) if not row.finish_reason]
        if not growing:
            return
        if len(growing) < len(rows):
            rows, past = [rows[i] for i in growing], past.select(growing)
        newest = np.array([row.tokens[-1:] for row in rows])  # [n_batch, 1]
        x = prefill.read(newest, params, n_head, past)[:, -1]  # [n_batch, n_embd]
