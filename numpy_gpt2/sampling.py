"""From logits to the next token: scale them, rule out the unlikely, and draw.

The functions that change logits take those of the next token, `[..., n_vocab]`, and return new ones; a token
that is ruled out has minus infinity, the logit of probability 0.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import numpy as np

from .layers import softmax
from .params import Array


def penalize_repetition(logits: Array, ids: Sequence[int], penalty: float) -> Array:
    """Makes the tokens of a text less likely to come again: divides their logits by the penalty.

    Negative logits are multiplied by it, which makes them smaller, too. A penalty below 1 makes
    repetition more likely. However often a token is in the text, it counts once.

    Shapes: logits `[n_vocab]`.
    Source: Keskar et al. 2019, "CTRL", section 4.1 (there without the multiplication).

    >>> penalize_repetition(np.array([1.0, 2.0, -2.0, 3.0]), [1, 2, 2], 2.0)
    array([ 1.,  1., -4.,  3.])
    """
    index = np.asarray(ids, int, like=logits)
    seen = logits[index]
    penalized = logits.copy()
    penalized[index] = np.where(seen < 0, seen * penalty, seen / penalty)
    return penalized


def scale_by_temperature(logits: Array, temperature: float) -> Array:
    """Divides by the temperature: below 1 the likely gets likelier, above 1 all gets more alike.

    >>> softmax(scale_by_temperature(np.log([0.2, 0.8]), 0.5)).round(3)
    array([0.059, 0.941])
    """
    return logits / temperature


def keep_top_k(logits: Array, k: int) -> Array:
    """Keeps the k tokens with the largest logits and any that are tied with the k-th, and rules out the rest.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation"; `top_k_logits` in OpenAI's `src/sample.py`.

    >>> keep_top_k(np.array([1.0, 4.0, 2.0, 3.0]), 2)
    array([-inf,   4., -inf,   3.])
    """
    n_vocab = logits.shape[-1]
    if k >= n_vocab:
        return logits
    kth = np.partition(logits, n_vocab - k, axis=-1)[..., n_vocab - k, None]
    return np.where(logits < kth, -math.inf, logits)


def keep_top_p(logits: Array, p: float) -> Array:
    """Keeps the fewest tokens whose probabilities add up to p, the likeliest first, and rules out the rest.

    Of equally likely ones, those with lower ids come first.

    Source: Holtzman et al. 2020, section 3.1 ("nucleus sampling").

    >>> keep_top_p(np.log([0.1, 0.6, 0.3]), 0.8).round(2)
    array([ -inf, -0.51, -1.2 ])
    """
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = np.take_along_axis(softmax(logits.astype(np.float64)), order, axis=-1)
    # What all likelier tokens have together: 0 for the first, which so always stays.
    before = np.cumsum(probabilities, axis=-1) - probabilities
    keep = np.empty_like(order, dtype=bool)
    np.put_along_axis(keep, order, before < p, axis=-1)
    return np.where(keep, logits, -math.inf)


def draw(logits: Array, rng: np.random.Generator) -> int:
    """Draws a token with the probabilities softmax(logits), by inverting their cumulative distribution.

    Shapes: logits `[n_vocab]`.
    """
    up_to = np.cumsum(softmax(logits.astype(np.float64)))
    return int(np.searchsorted(up_to, rng.random() * up_to[-1], side="right"))


def adjust(logits: Array, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Array:
    """The logits that a token is drawn with, after temperature, top-k and top-p in this order.

    Source: `sample_sequence` in OpenAI's `src/sample.py`.

    >>> softmax(adjust(np.log([0.1, 0.6, 0.3]), top_k=2)).round(3)
    array([0.   , 0.667, 0.333])
    """
    logits = scale_by_temperature(logits, temperature)
    if top_k:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    return logits


def next_token(
    logits: Array,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    ids: Sequence[int] = (),
) -> int:
    """Chooses the next token: the likeliest at temperature 0, otherwise one drawn from those that remain.

    Args:
        logits: `[n_vocab]`.
        rng: where the randomness comes from.
        temperature, top_k, top_p, repetition_penalty: as `check_sampling` describes them. The penalty
            comes first, even at temperature 0; then the others, in this order.
        ids: the text so far, for the penalty.

    Source: `sample_sequence` in OpenAI's `src/sample.py`.

    Raises:
        ValueError: a logit is NaN or infinity, or all are minus infinity.
    """
    if not math.isfinite(logits.max()):
        raise ValueError("the model's logits are not finite numbers: are all of its parameters?")
    if repetition_penalty != 1:
        logits = penalize_repetition(logits, ids, repetition_penalty)
    if temperature == 0:
        return int(np.argmax(logits))
    return draw(adjust(logits, temperature, top_k, top_p), rng)


def check_sampling(
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, repetition_penalty: float = 1.0
) -> None:
    """Checks how the next token is to be chosen.

    Args:
        temperature: 0 for the likeliest token each time, or what logits are divided by.
        top_k: how many of the likeliest tokens stay in the draw; 0 for all.
        top_p: how much probability stays in the draw; 1 for all.
        repetition_penalty: what the logits of tokens that are in the text are divided by, if negative
            multiplied by; 1 for no penalty.

    Raises:
        ValueError: one of them is out of its range.
    """
    for name, value in (("temperature", temperature), ("top_p", top_p), ("repetition_penalty", repetition_penalty)):
        if not isinstance(value, numbers.Real):
            raise ValueError(f"{name} must be a number, not {value!r}")
    if not (temperature == 0 or 1e-4 <= temperature <= 1e4):
        raise ValueError(f"temperature must be 0 (the likeliest token each time) or 0.0001 to 10000, not {temperature}")
    check_whole_number("top_k", top_k)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    if not 1e-4 <= repetition_penalty <= 1e4:
        raise ValueError(f"repetition_penalty must be 1 (none) or 0.0001 to 10000, not {repetition_penalty}")


def check_whole_number(name: str, value: int, at_least: int = 0, at_most: float = math.inf) -> int:
    """Checks a number of things, and returns it as a Python int, which no sum can overflow.

    Raises:
        ValueError: it is not a whole number, or out of its range.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not at_least <= value <= at_most:
        upwards = f"{at_least} or more" if at_most == math.inf else f"{at_least} to {at_most}"
        raise ValueError(f"{name} must be a whole number, {upwards}, not {value!r}")
    return int(value)
