"""What there is to see in a model: plain functions of a model, and perhaps a text, that return arrays and tables.

`pictures.py` draws what they return, and the command `numpy-gpt2 explore` prints it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import checks, layers, model, sampling
from ..decoding.prompts import Prompt, require
from ..evaluation.hidden_states import hidden_states
from ..gpt2 import GPT2
from ..interactive import did_you_mean
from ..machine.backend import to_host
from ..params import Array, Params, named_arrays
from ..tokenizer import Tokenizer
from .recorder import trace

MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


class Statistics(NamedTuple):
    """A parameter in numbers."""

    name: str
    shape: tuple[int, ...]
    size: int
    mean: float
    deviation: float  # the standard deviation


def parameter_statistics(params: Params) -> list[Statistics]:
    """Name, shape, size, mean and standard deviation of every parameter, in the order of the tree."""
    return [
        Statistics(name, array.shape, array.size, float(array.mean(dtype=np.float64)), float(array.std()))
        for name, array in named_arrays(params)
    ]


class Token(NamedTuple):
    """A token of a text, and the merges that made it."""

    id: int
    piece: str  # its text, with visible white space
    bytes: bytes
    merges: list[str]  # the pairs that were merged, in order


def visible(data: bytes) -> str:
    r"""The bytes of a token as text: with marks for white space, and bytes that are not text in hexadecimal.

    >>> visible(b" caf"), visible(b"\n"), visible(b"\xc3")
    ('␣caf', '⏎', '\\xc3')
    """
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(MARKS.get(c, c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)


def token_labels(tokenizer: Tokenizer | None, ids: npt.ArrayLike) -> list[str]:
    """A label for each token of a row: its text or, for a model without a vocabulary, its id."""
    row = np.ravel(ids).tolist()
    return [str(id) if tokenizer is None else visible(tokenizer.decode_bytes([id])) for id in row]


def tokens(tokenizer: Tokenizer, text: str) -> list[Token]:
    """How a text splits into tokens, with the bytes of each and the merges that made it.

    Raises:
        ValueError: the tokenizer refuses the text.

    >>> [token.piece for token in tokens(Tokenizer.gpt2(), "Hello tokenizers")]
    ['Hello', '␣token', 'izers']
    """
    made_from: dict[str, str] = {}
    for pair in tokenizer.ranks:
        made_from.setdefault(pair.replace(" ", ""), pair)

    def history(token: str) -> list[str]:
        if token not in made_from:  # a single byte
            return []
        left, right = made_from[token].split(" ")
        return [*history(left), *history(right), made_from[token]]

    found = []
    for id in tokenizer.encode(text):
        data = tokenizer.decode_bytes([id])
        merges = sorted(set(history(tokenizer.decoder[id])), key=tokenizer.ranks.__getitem__)
        found.append(Token(id, visible(data), data, merges))
    return found


def read_ids(gpt2: GPT2, text: Prompt) -> Array:
    """The ids of a text, or of a row of ids, as a batch of one: `[1, n_seq]`.

    Raises:
        ValueError: the text is empty or too long for the model's context, or the ids are not ids of the model.
    """
    ids = require(gpt2.tokenizer).encode(text) if isinstance(text, str) else text
    if len(ids) == 0:
        raise ValueError("there is no text to look at: give one, in quotes")
    batch = checks.check_ids(ids, gpt2.hparams)
    if len(batch) > 1:
        raise ValueError("one text is looked at, and this is several")
    checks.check_fits(batch, gpt2.hparams)
    return batch


class Chance(NamedTuple):
    """How likely a token is to come next."""

    id: int
    probability: float  # by the model alone
    drawn: float  # with the sampling options


def next_tokens(gpt2: GPT2, text: Prompt, n: int = 10, **options: float) -> list[Chance]:
    """The n likeliest tokens to follow a text, likeliest first.

    Args:
        gpt2: the model.
        text: what they follow.
        n: how many.
        options: those of `sampling.OPTIONS`, such as temperature=0.8; one that is not given is off.

    Raises:
        ValueError: the text is empty or too long, an option is out of its range, or the logits are not finite
            numbers.
    """
    options = {option.name: option.off for option in sampling.OPTIONS} | options
    options = sampling.check_sampling(**options)
    ids = read_ids(gpt2, text)
    logits = gpt2.logits(ids)[0, -1].astype(np.float64)
    drawn = layers.softmax(sampling.adjust(logits, ids[0].tolist(), **options))
    probabilities = layers.softmax(logits)
    likeliest = np.argsort(-logits, kind="stable")[:n].tolist()
    return [Chance(id, float(probabilities[id]), float(drawn[id])) for id in likeliest]


def attention_weights(gpt2: GPT2, text: Prompt, layer: int | None = None) -> Array:
    """The attention weights of all heads: row i holds the weights that token i gives to each token.

    Returns:
        `[n_layer, n_head, n_seq, n_seq]`; with a layer, those of its block, `[n_head, n_seq, n_seq]`.

    Raises:
        ValueError: as for `read_ids`, there is no such layer, or the result would not be finite numbers. The same
            holds for the functions below.
    """
    if layer is not None:
        checks.check_whole_number("layer", layer, at_most=gpt2.hparams.n_layer - 1)
    with trace("h*/attn/weights" if layer is None else f"h{layer}/attn/weights") as t:
        gpt2.hidden_states(read_ids(gpt2, text))
    if not t:
        raise ValueError("no attention has computed `weights`: layers.attention has been replaced by another function")
    weights = np.concatenate([*t.values()])
    return weights if layer is None else weights[0]


def unmasked_weights(gpt2: GPT2, text: Prompt, layer: int) -> Array:
    """The weights that the heads of one block would have without the mask, so that each token sees all others.

    Queries and keys are those of the masked model. So this is what the mask hides, and not what a model trained
    without a mask would do. With the identity matrix as values, attention returns its weights.

    Returns:
        `[n_head, n_seq, n_seq]`.
    """
    checks.check_whole_number("layer", layer, at_most=gpt2.hparams.n_layer - 1)
    with trace([f"h{layer}/attn/q", f"h{layer}/attn/k"]) as t:
        gpt2.hidden_states(read_ids(gpt2, text))
    q, k = t.values()
    n_seq = q.shape[-2]
    return layers.attention(q, k, np.eye(n_seq, dtype=q.dtype), np.ones((n_seq, n_seq), bool))[0]


class Habits(NamedTuple):
    """Where a head looks, averaged over the tokens of a text except the first, which sees only itself."""

    first: float  # the weight on the first token
    itself: float  # the weight on the token itself
    previous: float  # the weight on the token before
    distance: float  # how many tokens back, weighted


def habits(weights: Array) -> Habits:
    """Where a head looks on average.

    Shapes: weights `[n_seq, n_seq]`, of two tokens or more.

    >>> habits(np.array([[1.0, 0.0], [0.25, 0.75]]))
    Habits(first=0.25, itself=0.75, previous=0.25, distance=0.25)
    """
    n_seq = len(weights)
    back = np.arange(n_seq)[:, None] - np.arange(n_seq)
    return Habits(
        first=float(weights[1:, 0].mean()),
        itself=float(np.diagonal(weights)[1:].mean()),
        previous=float(np.diagonal(weights, -1).mean()),
        distance=float((weights * back)[1:].sum(axis=-1).mean()),
    )


class Lens(NamedTuple):
    """What the next token would be if the model ended after each layer."""

    ids: Array  # the likeliest token, [n_layer + 1, n_seq]; row 0 is before the first block
    probabilities: Array  # the probability of that token, the same shape


def logit_lens(gpt2: GPT2, text: Prompt) -> Lens:
    """What each layer would predict: the output head, applied to what enters each block and what leaves the last.

    Returns:
        Arrays of `[n_layer + 1, n_seq]`.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    *states, last = hidden_states(read_ids(gpt2, text), gpt2.params, gpt2.hparams.n_head)
    normalised = [*(layers.layer_norm(x, gpt2.params.ln_f) for x in states), last]
    ids, probabilities = zip(*(likeliest(x[0], gpt2.params) for x in normalised), strict=True)
    return Lens(np.stack(ids), np.stack(probabilities))


def likeliest(x: Array, params: Params) -> tuple[Array, Array]:
    """The likeliest tokens after vectors that the last layer norm has returned, and their probabilities.

    Shapes: `[n_seq, n_embd]` to twice `[n_seq]`.
    """
    predicted = layers.softmax(checks.check_finite(model.output_head(x, params)))  # [n_seq, n_vocab]
    return to_host(np.argmax(predicted, axis=-1)), to_host(np.max(predicted, axis=-1))


def position_similarity(params: Params) -> Array:
    """How similar the embeddings of each two positions are: the cosine of the angle between them.

    Returns:
        `[n_ctx, n_ctx]`.
    """
    wpe = to_host(params.wpe)
    length = np.sqrt(np.sum(wpe * wpe, axis=-1, keepdims=True))
    unit = wpe / np.maximum(length, np.finfo(wpe.dtype).tiny)
    return unit @ unit.T


def parameter(params: Params, name: str) -> Array:
    """A parameter by its name in the checkpoint, or a slice of it: `h1/attn/c_attn/w[:300,:300]`.

    Raises:
        ValueError: there is no such parameter, or it has no such slice.

    >>> import numpy_gpt2
    >>> parameter(numpy_gpt2.load("tiny").params, "h1/attn/c_attn/w[:300, 5]").shape
    (256,)
    """
    array_of = dict(named_arrays(params))
    match = re.fullmatch(r"\s*([^\[\]]*?)\s*(?:\[(.*)\])?\s*", name)
    if not match:
        raise ValueError(f"{name!r} is not a name, or a name and a slice such as [:300,:300]")
    if match[1] not in array_of:
        near = did_you_mean(match[1], array_of)
        raise ValueError(f"there is no parameter {match[1]!r}{near} (`explore params` lists all)")
    array = to_host(array_of[match[1]])
    if match[2] is None:
        return array
    shape = f"{match[1]} has the shape {list(array.shape)}"
    try:
        index = tuple(
            slice(*(int(bound) if bound.strip() else None for bound in part.split(":"))) if ":" in part else int(part)
            for part in match[2].split(",")
        )
        part = array[index]
    except IndexError:
        raise ValueError(f"{shape}, and [{match[2]}] is outside of it") from None
    except (ValueError, TypeError):
        raise ValueError(f"{shape}, and [{match[2]}] is no slice of it: write one like [:300,:300]") from None
    if part.size == 0:
        raise ValueError(f"{shape}, and nothing of it is in [{match[2]}]")
    return part


class Sizes(NamedTuple):
    """The root mean square of the residual stream after each block, and of what each part of the block added."""

    stream: Array  # [n_layer]
    attention: Array  # [n_layer]
    mlp: Array  # [n_layer]


def stream_sizes(gpt2: GPT2, text: Prompt) -> Sizes:
    """How large the residual stream grows, and how much the attention and the MLP of each block add to it."""
    blocks = [f"h{i}" for i in range(gpt2.hparams.n_layer)]
    with trace([b + part for b in blocks for part in ("", "/attn", "/mlp")]) as t:
        gpt2.hidden_states(read_ids(gpt2, text))
    return Sizes(*(np.array([root_mean_square(t[b + part]) for b in blocks]) for part in ("", "/attn", "/mlp")))


def root_mean_square(x: Array) -> float:
    """The square root of the mean of the squares.

    >>> root_mean_square(np.array([3.0, -4.0, 0.0, 0.0]))
    2.5
    """
    return float(np.sqrt(np.mean(x * x)))
