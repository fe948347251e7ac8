"""What each line of `layers.py` and `model.py` does for one entry of its array, number by number.

`LINES`, at the end, has for each array a function and the arrays that the function reads. The function does for one
entry what the line does for all, and keeps each number on the way. `explanation.py` shows these numbers.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..machine.backend import to_host
from .operands import ALL, STREAM, Entry, Number, Term


class Calculation(NamedTuple):
    """What a function of `LINES` returns."""

    formula: str
    numbers: list[Number]  # operands and steps, in order; the last is the result
    size: float | None = None  # of the numbers that the result is the sum of; by default that of the result


def calculate(entry: Entry) -> Calculation:
    """Explains an entry.

    Raises:
        KeyError: an operand was not recorded.
        ValueError: there is no such array in `LINES`.
    """
    kind = re.sub(r"^h\d+", "h", entry.name)
    if kind not in LINES:
        raise ValueError(f"explain knows what layers.py and model.py compute, and {entry.name!r} is not among that")
    function, *operands = LINES[kind]
    with np.errstate(all="ignore"):
        calculation: Calculation = function(entry, *entry.require(*operands))
    return calculation


def sum_of(text: str, *factors: list[Number]) -> Number:
    """The sum of the products of numbers: the first of each list, then the second, and so on."""
    terms = tuple(Term(each, math.prod(number.value for number in each)) for each in zip(*factors, strict=True))
    return Number(text, sum(term.value for term in terms), terms=terms)


def size_of(*numbers: Number) -> float:
    """The sum of the magnitudes of numbers, and of the terms where a number is a sum."""
    return sum(sum(abs(term.value) for term in n.terms) if n.terms else abs(n.value) for n in numbers)


def position(entry: Entry) -> Calculation:
    """`positions = np.arange(n_seq)`, or with a past `past.positions(n_seq)`."""
    i = entry.index[-1]
    formula = "positions = the number of tokens read before + 0, 1, 2, ..."
    if len(entry.index) == 1:
        return Calculation(formula, [Number("i, as nothing was read before", i)])
    first = entry.position(0)
    return Calculation(formula, [first, Number("i", i), Number("position + i", first.value + i)])


def embedding(entry: Entry) -> Calculation:
    """`x = params.wte[ids] + params.wpe[positions]`."""
    _, i, d = entry.index
    id, position = entry.id("id", "ids", entry.trace.ids), entry.position(i)
    (token,), (place,) = entry.parameter("wte", int(id.value), d), entry.parameter("wpe", int(position.value), d)
    total = Number("wte + wpe", token.value + place.value)
    return Calculation("x = wte[id] + wpe[position]", [id, position, token, place, total], size_of(token, place))


def typed(entry: Entry, x: str) -> Calculation:
    """`x = x + params.wte[token_type_ids]`."""
    type = entry.id("type", "token_type_ids", entry.trace.token_type_ids)
    (before,), (token,) = entry.read("x", x, *entry.index), entry.parameter("wte", int(type.value), entry.index[-1])
    total = Number("x + wte", before.value + token.value)
    return Calculation("x = x + wte[type]", [before, type, token, total], size_of(before, token))


def centred(entry: Entry, x: str) -> Calculation:
    """`centred = x - x.mean(axis=-1, keepdims=True)`."""
    b, i, d = entry.index
    row = entry.read("x", x, b, i, ALL)
    total = sum_of("sum of x", row)
    mean = Number("mean(x) = sum / n_embd", total.value / len(row))
    result = Number("x - mean(x)", row[d].value - mean.value)
    size = abs(row[d].value) + size_of(total) / len(row)
    return Calculation(f"centred = x - mean(x), where x is {x}", [total, mean, row[d], result], size)


def variance(entry: Entry, centred: str) -> Calculation:
    """`variance = (centred * centred).mean(axis=-1, keepdims=True)`."""
    b, i, _ = entry.index
    row = entry.read("centred", centred, b, i, ALL)
    total = sum_of("sum of centred * centred", row, row)
    mean = Number("variance = sum / n_embd", total.value / len(row))
    return Calculation("variance = mean(centred * centred)", [total, mean])


def layer_norm(entry: Entry, centred: str, variance: str) -> Calculation:
    """`params.g * (centred / np.sqrt(variance + 1e-5)) + params.b`."""
    b, i, d = entry.index
    (x,), (var,) = entry.read("centred", centred, b, i, d), entry.read("variance", variance, b, i, 0)
    (g,), (shift,) = entry.parameter(f"{entry.name}/g", d), entry.parameter(f"{entry.name}/b", d)
    root = Number("sqrt(variance + 1e-5)", float(np.sqrt(var.value + 1e-5)))
    quotient = Number("centred / sqrt(variance + 1e-5)", x.value / root.value)
    scaled = Number("g * quotient", g.value * quotient.value)
    result = Number("g * quotient + b", scaled.value + shift.value)
    numbers = [x, var, root, quotient, g, scaled, shift, result]
    return Calculation("g * (centred / sqrt(variance + 1e-5)) + b", numbers, size_of(scaled, shift))


def linear(entry: Entry, x: str) -> Calculation:
    """`product(x, params.w) + params.b`."""
    b, i, column = entry.index
    merged = entry.trace[x].ndim == 4  # `merge_heads` puts the heads side by side
    vector = entry.read("x", x, b, ALL, i, ALL) if merged else entry.read("x", x, b, i, ALL)
    total = sum_of("sum of x * w", vector, entry.parameter(f"{entry.name}/w", ALL, column))
    (bias,) = entry.parameter(f"{entry.name}/b", column)
    result = Number("sum + b", total.value + bias.value)
    formula = f"x w + b, where x is {f'merge_heads({x})' if merged else x}"
    return Calculation(formula, [total, bias, result], size_of(total, bias))


def split(entry: Entry, c_attn: str) -> Calculation:
    """`qkv = split_heads(linear(x, params.c_attn), 3 * n_head)`."""
    b, part, i, d = entry.index
    column = Number(f"column = part {part} * d_head + {d}", part * entry.shape[-1] + d)
    (x,) = entry.read("c_attn", c_attn, b, i, int(column.value))
    return Calculation("qkv = c_attn, in parts of d_head columns", [column, x])


def part_of(entry: Entry, qkv: str) -> Calculation:
    """`q, k, v = qkv[:, :n_head], qkv[:, n_head : 2 * n_head], qkv[:, 2 * n_head :]`."""
    b, head, i, d = entry.index
    _, n_head, _, d_head = entry.shape
    letter = entry.name[-1]
    n_before = "qkv".index(letter)
    part = Number(f"part = {n_before} * n_head + head {head}", n_before * n_head + head)
    column = Number(f"column of c_attn = part * d_head + {d}", part.value * d_head + d)
    (x,) = entry.read("qkv", qkv, b, int(part.value), i, d)
    formula = f"{letter} = the {('first', 'second', 'last')[n_before]} n_head parts of qkv"
    return Calculation(formula, [part, column, x])


def mask(entry: Entry) -> Calculation:
    """`np.arange(n_key) <= positions[..., None]`."""
    *_, i, j = entry.index
    position = entry.position(i) if len(entry.shape) == 4 else Number("position", i)
    numbers = [Number("key", j), position, Number("key <= position", j <= position.value)]
    return Calculation("mask = (key <= position of the query)", numbers)


def score(entry: Entry, q: str, k: str, mask: str) -> Calculation:
    """`scores = (q / math.sqrt(q.shape[-1])) @ np.swapaxes(k, -1, -2)`, and `-math.inf` where the mask is False."""
    b, h, i, j = entry.index
    formula = "scores = q k^T / sqrt(d_head), and minus infinity where mask is False"
    index = (i, j) if entry.trace[mask].ndim == 2 else (b, 0, i, j)
    (seen,) = entry.read("mask", mask, *index)
    if not seen.value:
        return Calculation(formula, [seen, Number("minus infinity: the key lies behind", -math.inf)])
    query = entry.read("q", q, b, h, i, ALL)
    total = sum_of("sum of q * k", query, entry.read("k", k, b, h, entry.row(k, j, entry.shape[-1]), ALL))
    root = Number("sqrt(d_head)", math.sqrt(len(query)))
    result = Number("sum / sqrt(d_head)", total.value / root.value)  # the code divides q: the same, up to rounding
    return Calculation(formula, [seen, total, root, result], size_of(total) / root.value)


def exponential(entry: Entry, scores: str) -> Calculation:
    """`e = np.exp(x - np.max(x, axis=-1, keepdims=True))`."""
    *row, j = entry.index
    x = entry.read("x", scores, *row, ALL)
    largest = replace(max(x, key=lambda each: each.value), text="max(x)")
    difference = Number("x - max(x)", x[j].value - largest.value)
    result = Number("exp(x - max(x))", math.exp(difference.value))
    size = (1 + abs(difference.value)) * result.value  # a rounding error of the difference multiplies the result
    return Calculation(f"e = exp(x - max(x)), where x is {scores}", [x[j], largest, difference, result], size)


def weight(entry: Entry, scores: str, e: str) -> Calculation:
    """`e /= np.sum(e, axis=-1, keepdims=True)`."""
    *row, j = entry.index
    (_, numbers, _), exponentials = exponential(entry, scores), entry.read("e", e, *row, ALL)
    total = sum_of("sum of e", exponentials)
    result = Number("e / sum of e", float(np.divide(exponentials[j].value, total.value)))
    numbers = [*numbers[:-1], replace(exponentials[j], text="e = exp(x - max(x))"), total, result]
    return Calculation(f"weights = exp(x - max(x)) / sum of exp(x - max(x)), where x is {scores}", numbers)


def average(entry: Entry, weights: str, v: str) -> Calculation:
    """`weights @ v`."""
    b, h, i, d = entry.index
    n_key = entry.trace[weights].shape[-1]
    used = [weight for weight in entry.read("weights", weights, b, h, i, ALL) if weight.value]
    values = [entry.read("v", v, b, h, entry.row(v, weight.index[-1], n_key), d)[0] for weight in used]
    total = sum_of("sum of weights * v", used, values)
    return Calculation("a = weights v: a sum over the keys, without those of weight 0", [total], size_of(total))


def added(entry: Entry, x: str, part: str) -> Calculation:
    """`x = x + multi_head_attention(...)` and `x = x + mlp(...)`."""
    (before,), (change,) = entry.read("x", x, *entry.index), entry.read(part, part, *entry.index)
    result = Number(f"x + {part}", before.value + change.value)
    return Calculation(f"x = x + {part}, where x is {x}", [before, change, result], size_of(before, change))


def gelu(entry: Entry, c_fc: str) -> Calculation:
    """`0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))`."""
    (x,) = entry.read("x", c_fc, *entry.index)
    cube = Number("x^3", x.value * x.value * x.value)
    inner = Number("sqrt(2 / pi) (x + 0.044715 x^3)", math.sqrt(2 / math.pi) * (x.value + 0.044715 * cube.value))
    tanh = Number("tanh of that", math.tanh(inner.value))
    result = Number("0.5 x (1 + tanh)", 0.5 * x.value * (1 + tanh.value))
    formula = f"gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), where x is {c_fc}"
    return Calculation(formula, [x, cube, inner, tanh, result], size_of(x))


def logit(entry: Entry, ln_f: str) -> Calculation:
    """`product(x, params.wte.T)`."""
    b, id = entry.index[0], entry.index[-1]
    vector = entry.read("x", ln_f, b, row_of_logits(entry, ln_f), ALL)
    total = sum_of("sum of x * wte", vector, entry.parameter("wte", id, ALL))
    return Calculation(f"logits = x wte^T, where x is {ln_f}", [total], size_of(total))


def row_of_logits(entry: Entry, ln_f: str) -> int:
    """The row of `ln_f` from which logits come: in a generation, there are only those of the last rows.

    Texts of different lengths are padded on the right. Nothing says where each ends, so the row is found by its result.
    """
    b, *place, id = entry.index
    x = entry.trace[ln_f][b]
    n_rows = math.prod(entry.shape[1:-1])
    row = len(x) - n_rows + (*place, 0)[0]
    if n_rows < len(x):
        token = to_host(entry.trace.parameter("wte")[id])
        fits = [i for i, each in enumerate(x * token) if entry.is_recorded(each.sum(), np.abs(each).sum())]
        return row if row in fits or not fits else fits[-1]
    return row


LINES: dict[str, tuple[Any, ...]] = {  # the function, and the arrays that it is given; in a block, h is that block
    "positions": (position,),
    "x": (embedding,),
    "x_2": (typed, "x"),
    "h/ln_1/centred": (centred, STREAM),
    "h/ln_1/variance": (variance, "h/ln_1/centred"),
    "h/ln_1": (layer_norm, "h/ln_1/centred", "h/ln_1/variance"),
    "h/attn/c_attn": (linear, "h/ln_1"),
    "h/attn/qkv": (split, "h/attn/c_attn"),
    "h/attn/q": (part_of, "h/attn/qkv"),
    "h/attn/k": (part_of, "h/attn/qkv"),
    "h/attn/v": (part_of, "h/attn/qkv"),
    "h/attn/mask": (mask,),
    "h/attn/scores": (score, "h/attn/q", "h/attn/k", "h/attn/mask"),
    "h/attn/e": (exponential, "h/attn/scores"),
    "h/attn/weights": (weight, "h/attn/scores", "h/attn/e"),
    "h/attn/a": (average, "h/attn/weights", "h/attn/v"),
    "h/attn/c_proj": (linear, "h/attn/a"),
    "h/x": (added, STREAM, "h/attn"),
    "h/ln_2/centred": (centred, "h/x"),
    "h/ln_2/variance": (variance, "h/ln_2/centred"),
    "h/ln_2": (layer_norm, "h/ln_2/centred", "h/ln_2/variance"),
    "h/mlp/c_fc": (linear, "h/ln_2"),
    "h/mlp/hidden": (gelu, "h/mlp/c_fc"),
    "h/mlp/c_proj": (linear, "h/mlp/hidden"),
    "h": (added, "h/x", "h/mlp"),
    "ln_f/centred": (centred, STREAM),
    "ln_f/variance": (variance, "ln_f/centred"),
    "ln_f": (layer_norm, "ln_f/centred", "ln_f/variance"),
    "logits": (logit, "ln_f"),
}
