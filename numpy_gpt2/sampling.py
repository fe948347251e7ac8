"""From logits to the next token: scale the logits, rule out unlikely tokens, and draw.

Each step takes the logits of the next token, `[..., n_vocab]`, and returns new ones. A token that is ruled out
gets minus infinity, the logit of probability 0. `OPTIONS` at the end lists the steps: what they are called,
which values they accept, and in which order they are applied.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import checks, interactive, layers
from .params import Array


def penalize_repetition(logits: Array, ids: Sequence[int], penalty: float) -> Array:
    """Makes the tokens of a text less likely to come again: divides their logits by the penalty.

    Negative logits are multiplied by the penalty, which also makes them smaller. A penalty below 1 makes
    repetition more likely. A token counts once, however often it is in the text.

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
    """Divides by the temperature: below 1, likely tokens become likelier; above 1, all become more alike.

    As the temperature falls to 0, only the likeliest token is left (several, if they are tied).

    >>> layers.softmax(scale_by_temperature(np.log([0.2, 0.8]), 0.5)).round(3)
    array([0.059, 0.941])
    """
    if temperature == 0:
        return np.where(logits < np.max(logits, axis=-1, keepdims=True), -math.inf, logits)
    return logits / temperature


def keep_top_k(logits: Array, k: int) -> Array:
    """Keeps the k tokens with the largest logits, and any that are tied with the k-th.

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
    """Keeps the fewest tokens whose probabilities add up to at least p, likeliest first.

    Of tied tokens, those with lower ids come first. transformers does the same. OpenAI's own sampler keeps the most
    tokens whose probabilities add up to at most p, and at least one: usually a token less.

    Source: Holtzman et al. 2020, section 3.1 ("nucleus sampling"); `top_p_logits` in OpenAI's `src/sample.py`.

    >>> keep_top_p(np.log([0.1, 0.6, 0.3]), 0.8).round(2)
    array([ -inf, -0.51, -1.2 ])
    """
    order = np.argsort(-logits, axis=-1, kind="stable")
    probabilities = np.take_along_axis(layers.softmax(logits.astype(np.float64)), order, axis=-1)
    before = np.cumsum(probabilities, axis=-1) - probabilities  # of all likelier tokens: 0 for the first, which stays
    keep = np.empty_like(order, dtype=bool)
    np.put_along_axis(keep, order, before < p, axis=-1)
    return np.where(keep, logits, -math.inf)


def keep_min_p(logits: Array, p: float) -> Array:
    """Keeps the tokens that are at least p times as probable as the likeliest one.

    Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs".

    >>> keep_min_p(np.log([0.1, 0.6, 0.3]), 0.4).round(2)
    array([ -inf, -0.51, -1.2 ])
    """
    probabilities = layers.softmax(logits)
    return np.where(probabilities < p * np.max(probabilities, axis=-1, keepdims=True), -math.inf, logits)


def draw(logits: Array, rng: np.random.Generator) -> int:
    """Draws a token with the probabilities softmax(logits), by inverting their cumulative distribution.

    Shapes: logits `[n_vocab]`.
    """
    possible = np.flatnonzero(logits > -math.inf)  # often a few of many thousands
    cumulative = np.cumsum(layers.softmax(logits[possible].astype(np.float64)))
    return int(possible[np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")])


def adjust(logits: Array, ids: Sequence[int] = (), **options: float) -> Array:
    """The logits with which a token is drawn: applies the options, in the order of `OPTIONS`.

    Args:
        logits: `[n_vocab]`.
        ids: the text so far, for the repetition penalty.
        options: values by name; one that is not given is off.

    Source: `sample_sequence` in OpenAI's `src/sample.py`.

    >>> layers.softmax(adjust(np.log([0.1, 0.6, 0.3]), top_k=2)).round(3)
    array([0.   , 0.667, 0.333])
    """
    check_names(options)
    for option in OPTIONS:
        value = options.get(option.name, option.off)
        if value != option.off:
            logits = option.apply(logits, value, ids)
        if option.name == "temperature" and value == 0:
            break  # only the likeliest token is left
    return logits


def final_logits(logits: Array, ids: Sequence[int] = (), **options: float) -> Array:
    """The logits with which a token is drawn, as by `adjust`, but in float64 and checked.

    Args:
        logits: `[n_vocab]`.
        ids, options: as for `adjust`.

    Raises:
        TypeError: there is no option of a given name.
        ValueError: a logit is NaN or infinity, all are minus infinity, or scaling them overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        adjusted = adjust(logits.astype(np.float64), ids, **options)  # in float32, scaling may overflow
    if not math.isfinite(adjusted.max()):
        checks.check_finite(logits.max())
        raise ValueError("the logits overflow when scaled: use a temperature and a penalty that are nearer to 1")
    return adjusted


def next_token(logits: Array, rng: np.random.Generator, ids: Sequence[int] = (), **options: float) -> int:
    """Chooses the next token: the likeliest at temperature 0, otherwise one that is drawn.

    Args:
        logits: `[n_vocab]`.
        rng: where the randomness comes from.
        ids, options: as for `adjust`. Their values are not checked here; `check_sampling` does that.

    Raises:
        TypeError, ValueError: as for `final_logits`.
    """
    adjusted = final_logits(logits, ids, **options)
    return int(np.argmax(adjusted)) if options.get("temperature") == 0 else draw(adjusted, rng)


class Option(NamedTuple):
    """All that there is to know about a sampling option."""

    name: str  # in Python; on the command line, with dashes
    type: type[int] | type[float]
    default: float  # when a text is generated
    off: float  # the value that changes nothing
    accepts: Callable[[float], bool]
    range: str  # of the values that are accepted, in words
    help: str
    apply: Callable[[Array, Any, Sequence[int]], Array]  # takes the logits, the value and the ids so far


# In the order in which they are applied. Those before the temperature also count when the temperature is 0. Lambdas, so
# that a function that is replaced from outside takes effect.
OPTIONS = (
    Option(
        name="repetition_penalty",
        type=float,
        default=1.0,
        off=1.0,
        accepts=lambda penalty: 1e-4 <= penalty <= 1e4,
        range="1 (none) or 0.0001 to 10000",
        help="above 1, tokens that are already in the text become less likely; 1.2 is a common choice",
        apply=lambda logits, penalty, ids: penalize_repetition(logits, ids, penalty),
    ),
    Option(
        name="temperature",
        type=float,
        default=1.0,
        off=1.0,
        accepts=lambda temperature: temperature == 0 or 1e-4 <= temperature <= 1e4,
        range="0 (the likeliest token each time) or 0.0001 to 10000",
        help="below 1 for less surprising text, above 1 for more; 0 takes the likeliest token each time",
        apply=lambda logits, temperature, ids: scale_by_temperature(logits, temperature),
    ),
    Option(
        name="top_k",
        type=int,
        default=40,
        off=0,
        accepts=lambda k: k >= 0,
        range="a whole number, 0 or more",
        help="draw only from this many of the likeliest tokens; 0 for all",
        apply=lambda logits, k, ids: keep_top_k(logits, k),
    ),
    Option(
        name="top_p",
        type=float,
        default=1.0,
        off=1.0,
        accepts=lambda p: 0 < p <= 1,
        range="above 0 and at most 1",
        help="draw only from the likeliest tokens that together have this probability; 1 for all",
        apply=lambda logits, p, ids: keep_top_p(logits, p),
    ),
    Option(
        name="min_p",
        type=float,
        default=0.0,
        off=0.0,
        accepts=lambda p: 0 <= p <= 1,
        range="0 to 1",
        help="draw only from tokens at least this many times as probable as the likeliest one; 0 for all",
        apply=lambda logits, p, ids: keep_min_p(logits, p),
    ),
)


NAMES = frozenset(option.name for option in OPTIONS)


def check_names(options: Mapping[str, float], others: Sequence[str] = ()) -> None:
    """Checks that there are sampling options of these names.

    Args:
        options: the values by name.
        others: names of other options, which somebody who misspelled one may have meant.

    Raises:
        TypeError: there is none of one of them.
    """
    if unknown := options.keys() - NAMES:
        name = min(unknown)
        raise TypeError(f"{name!r} is not an option here{interactive.did_you_mean(name, [*NAMES, *others])}")


def check_sampling(**options: float) -> dict[str, float]:
    """Checks sampling options, and returns the values of all of them: those not given have their default.

    Raises:
        TypeError: there is no option of this name.
        ValueError: a value is out of its range.
    """
    check_names(options)
    checked: dict[str, float] = {}
    for option in OPTIONS:
        value = options.get(option.name, option.default)
        if not isinstance(value, numbers.Real):
            raise ValueError(f"{option.name} must be a number, not {value!r}")
        is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not option.accepts(value) or (option.type is int and not is_whole):
            raise ValueError(f"{option.name} must be {option.range}, not {value!r}")
        checked[option.name] = option.type(value)
    return checked
