"""How well the model predicts a given text: the probability and rank of each token, and the cross-entropy.

A text longer than the context is read in windows, which begin `stride` tokens after one another. In each window,
only the tokens that no earlier window scored are scored. So every token but the first is scored once, and, after
the first window, with at least n_ctx - stride tokens before it. A smaller stride lets the model see more, and
takes longer.

Source: "Perplexity of fixed-length models" in the documentation of Hugging Face's transformers, which weights the
windows slightly differently; here, each token has the same weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .. import checks, layers, model
from ..cache import Past
from ..decoding import prefill
from ..machine.backend import to_host
from ..params import Array, Params

IGNORED = -100  # as a label: this token is not to be scored; the same number as in PyTorch and transformers

# Positions whose logits are computed at once, of all texts together: those of a whole window would take much memory.
POSITIONS_AT_ONCE = 256


class Scores(NamedTuple):
    """The model's view of tokens, each given the tokens before it."""

    log_probabilities: Array  # natural logarithms, [n_batch, n_seq]
    ranks: Array  # 1 for the likeliest token of the vocabulary, [n_batch, n_seq]


def windows(n_seq: int, n_ctx: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Where each window begins, the first token that is scored in it, and where it ends.

    The last token of a window is scored, but not read. So a window has at least two tokens, even if n_ctx is 1.

    >>> list(windows(n_seq=10, n_ctx=4, stride=3))
    [(0, 1, 4), (3, 4, 7), (6, 7, 10)]
    """
    begin, first = 0, 1
    while first < n_seq:
        end = min(begin + max(n_ctx, 2), n_seq)
        yield begin, first, end
        begin, first = begin + stride, end


def score(
    ids: Array,
    params: Params,
    n_head: int,
    stride: int,
    labels: Array | None = None,
    positions_at_once: int = POSITIONS_AT_ONCE,
) -> Iterator[Scores]:
    """Scores every token but the first, a few at a time.

    Args:
        ids: the texts, `[n_batch, n_seq]`.
        params, n_head: the model.
        stride: the distance from one window to the next, in tokens, 1 to n_ctx - 1.
        labels: the tokens to score, if they are not the ids themselves, `[n_batch, n_seq]`.
        positions_at_once: how many positions to score at a time, of all texts together.

    Returns:
        An iterator of the scores of a few tokens at a time; together they are `[n_batch, n_seq - 1]`.

    Raises:
        ValueError: the logits are not finite numbers.
    """
    labels = ids if labels is None else labels
    n_batch, n_seq = ids.shape
    at_once = n_seq if prefill.reads_whole() else max(1, positions_at_once // n_batch)  # one name for all logits
    past = Past(params, n_head, n_batch)
    for begin, first, end in windows(n_seq, len(params.wpe), stride):
        past.lengths[:] = 0
        x = prefill.read(ids[:, begin : end - 1], params, n_head, past)
        for i in range(first, end, at_once):
            last = min(i + at_once, end)
            before = x[:, i - 1 - begin : last - 1 - begin]  # token j is scored by the vector of token j - 1
            logits = checks.check_finite(model.output_head(before, params))
            yield score_logits(logits, labels[:, i:last])


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
    """The scores of the labels by these logits, as NumPy arrays. Where a label is `IGNORED`, they have no meaning.

    Shapes: logits `[..., n_vocab]`, labels `[...]`.
    """
    labels = np.asarray(np.where(labels == IGNORED, 0, labels)[..., None], like=logits)
    higher = logits > np.take_along_axis(logits, labels, axis=-1)
    return Scores(
        log_probabilities=to_host(np.take_along_axis(layers.log_softmax(logits), labels, axis=-1)[..., 0]),
        ranks=to_host(1 + np.count_nonzero(higher, axis=-1)),
    )


def cross_entropy(log_probabilities: Array, labels: Array) -> float:
    """The loss: the mean of minus the log-probabilities, in nats, except those whose label is `IGNORED`.

    cross_entropy = -mean_i log p(label_i)

    Shapes: both the same, any.
    Source: Radford et al. 2018, section 3.1.

    Raises:
        ValueError: all labels are `IGNORED`.
    """
    counted = log_probabilities[labels != IGNORED]
    if not counted.size:
        raise ValueError(
            "there is nothing to score: the first token of a text never is, and there is no other label than -100"
        )
    return -float(np.mean(counted, dtype=np.float64))


def perplexity(loss: float) -> float:
    """How many equally likely tokens would be as hard to predict: the exponential of the loss.

    Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks".

    >>> round(perplexity(math.log(10)), 6)
    10.0
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def bits_per_byte(log_probability: float, n_bytes: int) -> float:
    """The length in bits of a text of n_bytes in the code that is best for the model, divided by n_bytes.

    Unlike the loss and the perplexity, it is comparable between models with different tokenizers.

    Args:
        log_probability: that of the text, the sum of those of its tokens, in nats.
        n_bytes: the length of the text.

    >>> bits_per_byte(math.log(0.5) + math.log(0.25), n_bytes=6)
    0.5
    """
    return -log_probability / math.log(2) / n_bytes
