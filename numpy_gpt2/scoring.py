"""How well the model predicts a text that is given: each token's probability and rank, and the cross-entropy.

A text longer than the context is read in windows. Each begins `stride` tokens after the one before, and
only the tokens that earlier ones did not score are scored in it: so every token but the first is scored
once, and after the first window with at least n_ctx - stride tokens before it. A smaller stride lets the
model see more, and takes longer.

Source: "Perplexity of fixed-length models" in the documentation of Hugging Face's transformers, which
weights the windows a little differently; here, each token has the same weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .backend import to_host
from .layers import log_softmax
from .model import Past, output_head, read
from .params import Array, Params

IGNORED = -100  # as a label: this token is not to be scored. PyTorch and transformers have the same number
ROWS_AT_ONCE = 256  # of logits, or one for each text: all those of a window would take much memory


class Scores(NamedTuple):
    """What the model thought of tokens, each given those before it."""

    log_probabilities: Array  # natural logarithms, [n_batch, n_seq]
    ranks: Array  # 1 for the likeliest of all tokens of the vocabulary, [n_batch, n_seq]


def windows(n_seq: int, n_ctx: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Where each window begins, the first token scored in it, and where it ends.

    >>> list(windows(n_seq=10, n_ctx=4, stride=3))
    [(0, 1, 4), (3, 4, 7), (6, 7, 10)]
    """
    begin, first = 0, 1
    while first < n_seq:
        end = min(begin + n_ctx, n_seq)
        yield begin, first, end
        begin, first = begin + stride, end


def score(ids: Array, params: Params, n_head: int, stride: int, labels: Array | None = None) -> Iterator[Scores]:
    """Scores every token but the first, a few at a time.

    Args:
        ids: the texts, `[n_batch, n_seq]`.
        params, n_head: the model.
        stride: from one window to the next, in tokens, 1 to n_ctx - 1.
        labels: the tokens to score, if they are not those that are read, `[n_batch, n_seq]`.

    Returns:
        An iterator of the scores of a few tokens at a time, `[n_batch, n_seq - 1]` together.
    """
    labels = ids if labels is None else labels
    n_batch, n_seq = ids.shape
    at_once = max(1, ROWS_AT_ONCE // n_batch)
    past = Past(params, n_head, n_batch)
    for begin, first, end in windows(n_seq, len(params.wpe), stride):
        past.lengths[:] = 0
        x = read(ids[:, begin : end - 1], params, n_head, past)
        for i in range(first, end, at_once):
            scored = labels[:, i : min(i + at_once, end)]
            before = x[:, i - 1 - begin :][:, : scored.shape[1]]  # each token is scored with the vector before it
            yield score_logits(output_head(before, params), scored)


def join(pieces: Iterable[Scores]) -> Scores:
    """The scores of all tokens together.

    Raises:
        ValueError: there are none.
    """
    pieces = list(pieces)
    if not pieces:
        raise ValueError("there is nothing to score: the first token of a text never is, and there is no other")
    return Scores(*(np.concatenate(values, axis=-1) for values in zip(*pieces, strict=True)))


def score_logits(logits: Array, labels: Array) -> Scores:
    """The scores of these tokens by these logits, as NumPy arrays; where a label is `IGNORED`, of no meaning.

    Shapes: logits `[..., n_vocab]`, labels `[...]`.
    """
    labels = np.asarray(np.where(labels == IGNORED, 0, labels)[..., None], like=logits)
    higher = logits > np.take_along_axis(logits, labels, axis=-1)
    return Scores(
        log_probabilities=to_host(np.take_along_axis(log_softmax(logits), labels, axis=-1)[..., 0]),
        ranks=to_host(1 + np.count_nonzero(higher, axis=-1)),
    )


def cross_entropy(log_probabilities: Array, labels: Array) -> float:
    """The loss: the mean of minus these log-probabilities, in nats, without those whose label is `IGNORED`.

    cross_entropy = -mean_i log p(label_i)

    Shapes: the same, any.
    Source: Radford et al. 2018, section 3.1.

    Raises:
        ValueError: there are no others.
    """
    counted = log_probabilities[labels != IGNORED]
    if not counted.size:
        raise ValueError(
            "there is nothing to score: the first token of a text never is, and there is no other label than -100"
        )
    return -float(np.mean(counted, dtype=np.float64))


def perplexity(loss: float) -> float:
    """How many tokens the model hesitates between on average: the exponential of the loss.

    Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks".

    >>> round(perplexity(math.log(10)), 6)
    10.0
    """
    return math.inf if loss > 700 else math.exp(loss)  # a float holds no more


def bits_per_byte(log_probabilities: Array, n_bytes: int) -> float:
    """The length in bits of a text of so many bytes, written with the best code for the model, for each byte of it.

    Unlike the loss and the perplexity, it does not depend on how the text is cut into tokens.

    >>> bits_per_byte(np.log([0.5, 0.25]), n_bytes=6)
    0.5
    """
    return -float(np.sum(log_probabilities, dtype=np.float64)) / math.log(2) / n_bytes
