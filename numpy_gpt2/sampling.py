"""From logits to the next token: scale them, rule out the unlikely, and draw.

Each function takes logits `[..., n_vocab]` and gives logits; a token that is ruled out has minus
infinity, the logit of probability 0.
"""

from __future__ import annotations

import math
import numbers

import numpy as np

from .layers import softmax
from .params import Array


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


def next_token(
    logits: Array,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> int:
    """Chooses the next token: the likeliest at temperature 0, otherwise one drawn from those that remain.

    Args:
        logits: `[n_vocab]`.
        rng: where the randomness comes from.
        temperature, top_k, top_p: as `check_sampling` describes them, applied in this order.

    Source: `sample_sequence` in OpenAI's `src/sample.py`.

    Raises:
        ValueError: a logit is NaN or infinity.
    """
    if not math.isfinite(logits.max()):
        raise ValueError("the model's logits are not finite numbers: are all of its parameters?")
    if temperature == 0:
        return int(np.argmax(logits))
    logits = scale_by_temperature(logits, temperature)
    if top_k:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    return draw(logits, rng)


def check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    """Checks how the next token is to be chosen.

    Args:
        temperature: 0 for the likeliest token each time, or what logits are divided by.
        top_k: how many of the likeliest tokens stay in the draw; 0 for all.
        top_p: how much probability stays in the draw; 1 for all.

    Raises:
        ValueError: one of them is out of its range.
    """
    if not (temperature == 0 or 1e-4 <= temperature <= 1e4):
        raise ValueError(f"temperature must be 0 (the likeliest token each time) or 0.0001 to 10000, not {temperature}")
    check_whole_number("top_k", top_k)
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")


def check_whole_number(name: str, value: int) -> None:
    """Checks a number of things, which may be 0.

    Raises:
        ValueError: it is negative, or not a whole number.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number, 0 or more, not {value!r}")
