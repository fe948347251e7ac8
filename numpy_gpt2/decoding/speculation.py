"""Speculative decoding: several tokens for one reading of the weights, and the same text.

For one new token, the model reads every weight; for a few tokens, it takes little longer. So something quick drafts how
the text may go on, and the model checks the whole draft at once:

1. A drafter guesses the next tokens: `lookup` from the text so far, `assistant` with a smaller model.
2. One pass reads the newest token and the draft. This gives the logits after each of them.
3. The first logits are those of the text, and the row chooses its next token from them, as it always does.
4. If that is the token that was drafted, the next logits are those of the text, too, and another token is chosen.
5. The first token that differs ends this. The past is shortened: what follows the difference is forgotten.
6. The next pass begins with the newest token. With an empty draft, it is a step of `generation.generate_batch`.

A wrong guess costs time, and changes nothing: every token is chosen from the same logits, up to rounding, by the same
function as without a draft. Only what an assistant drafts is chosen by another one where tokens are drawn, which keeps
their distribution; see there.

Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192); Chen et
al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling" (arXiv 2302.01318).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence

import numpy as np

from .. import model
from ..cache import Past
from ..params import Array, Params
from . import prefill
from .row import Row

log = logging.getLogger(__name__)


def generate_each(rows: Iterable[Row], params: Params, n_head: int, slide: bool = False) -> Iterator[int]:
    """Continues several texts, one after another; otherwise like `generation.generate_batch`.

    Yields:
        After each token the number 1.
    """
    for row in rows:
        yield from generate_one(row, params, n_head, slide)
        row.release()


def generate_one(row: Row, params: Params, n_head: int, slide: bool = False) -> Iterator[int]:
    """Continues a text with what its drafter drafts, until it has ended.

    Yields:
        After each token the number 1.
    """
    assert row.drafter
    n_ctx = len(params.wpe)
    row.slide_or_end(n_ctx, slide)
    if row.finish_reason:
        return
    capacity = min(n_ctx, row.n_prompt + row.max_new_tokens)
    past, x = prefill.read_prompts([row.context], params, n_head, capacity)
    logits = model.output_head(x, params)  # [1, n_vocab]
    draft: list[int] = []
    while True:
        row.n_accepted += yield from accept(row, logits, draft)
        if row.slide_or_end(n_ctx, slide):
            prefill.reread(past, row.context[:-1], params, n_head)
        if row.finish_reason:
            break
        draft = row.drafter.draft(row, room(row, n_ctx))
        row.n_drafted += len(draft)
        logits = read_draft(row, draft, params, n_head, past)


def log_drafts(rows: Iterable[Row]) -> None:
    """Logs how many tokens were drafted for these texts, and how many of them accepted."""
    counts = [(row.n_drafted, row.n_accepted) for row in rows]
    log.debug("drafted tokens: %d, accepted: %d", *map(sum, zip(*counts, strict=True)))


def read_draft(row: Row, draft: Sequence[int], params: Params, n_head: int, past: Past) -> Array:
    """The logits after the newest token of a row and after each drafted one, `[1 + n_draft, n_vocab]`.

    The past may still hold a draft from before; it is shortened to the text.
    """
    past.lengths[:] = len(row.context) - 1
    x = prefill.read(np.array([[row.tokens[-1], *draft]]), params, n_head, past)[0]  # [1 + n_draft, n_embd]
    return model.output_head(x, params)


def accept(row: Row, logits: Array, draft: Sequence[int]) -> Generator[int, None, int]:
    """Lets a row grow by one token, and by another one for each drafted token that it chooses.

    Shapes: logits `[1 + n_draft, n_vocab]`.

    Yields:
        After each token the number 1.

    Returns:
        How many of the drafted tokens it chose.
    """
    for n_accepted, after in enumerate(logits):
        row.grow(after)
        yield 1
        if row.finish_reason or n_accepted == len(draft) or row.tokens[-1] != draft[n_accepted]:
            break
    return n_accepted


def room(row: Row, n_ctx: int) -> int:
    """The most tokens to draft: those that the context holds, and that the row may still have before its last one.

    Where a trace or a patch is active, none: a step of the trace is a token of the text.
    """
    if prefill.reads_whole():
        return 0
    return min(n_ctx - len(row.context), row.n_prompt + row.max_new_tokens - len(row.tokens) - 1)


# How many tokens to draft

# Milliseconds that the products of one pass take, by the number of tokens: the table in `machine/products.py`. Up to 6
# tokens, each costs about the same; then 8 and 16 are good numbers. Longer drafts would gain little.
MEASURED = {1: 23, 2: 34, 3: 40, 4: 48, 5: 53, 6: 60, 8: 64, 10: 74, 12: 70, 14: 71, 16: 65, 24: 84, 32: 90}

# The same for 1, 2, 3, ... tokens, in passes of one token.
COSTS = (np.interp(range(1, max(MEASURED) + 1), [*MEASURED], [*MEASURED.values()]) / MEASURED[1]).tolist()

MOST = len(COSTS) - 1  # tokens of a draft


def best_length(chances: Iterable[float], cost: float = 0.0) -> int:
    """How many tokens to draft, for the most tokens in the same time.

    With n drafted tokens of which token i is right with the probability c_i if those before it are, a pass gives
    1 + c_1 + c_1 c_2 + ... + c_1 ... c_n tokens: one that needs no draft, and those of the draft up to the first
    wrong one.

    Args:
        chances: the c_i, as many as there may be drafted.
        cost: of drafting one token, in passes of the model.

    Source: Leviathan et al. 2023, section 3.5, for the same chance everywhere.

    >>> best_length([0.3] * 20), best_length([0.6] * 20), best_length([0.97] * 20)
    (0, 2, 20)
    """
    best, best_rate = 0, 1.0
    right = expected = 1.0
    for n, (chance, pass_cost) in enumerate(zip(chances, COSTS[1:], strict=False), start=1):
        right *= chance
        expected += right
        if (rate := expected / (pass_cost + n * cost)) > best_rate:
            best, best_rate = n, rate
    return best
