"""What there is to see in a model: plain functions from a model, and perhaps a text, to arrays and tables.

`pictures.py` draws what they return, and `python -m numpy_gpt2.explore` prints it.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .backend import to_host
from .gpt2 import GPT2
from .layers import attention, layer_norm, softmax
from .model import check_fits, check_ids, hidden_states, output_head
from .params import Array, Params, named_arrays
from .prompts import Prompt, require
from .recorder import trace
from .sampling import adjust, check_sampling
from .tokenizer import Tokenizer

MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def source(function: Callable[..., object]) -> str:
    """The code of a function, as it is in its file, without the docstring.

    >>> print(source(source).splitlines()[0])
    def source(function: Callable[..., object]) -> str:
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines)


class Statistics(NamedTuple):
    """A parameter in numbers."""

    name: str
    shape: tuple[int, ...]
    size: int
    mean: float
    deviation: float  # the standard deviation


def parameter_statistics(params: Params) -> list[Statistics]:
    """Name, shape, size, mean and standard deviation of every parameter, in the order of the checkpoint's tree."""
    return [
        Statistics(name, array.shape, array.size, float(array.mean(dtype=np.float64)), float(array.std()))
        for name, array in named_arrays(params)
    ]


class Token(NamedTuple):
    """A token of a text, and how it came about."""

    id: int
    piece: str  # with visible white space
    bytes: bytes
    merges: list[str]  # the pairs that were joined, in this order


def visible(data: bytes) -> str:
    r"""A token's bytes as text that shows all: a mark for white space, and bytes that are no text in hexadecimal.

    >>> visible(b" caf"), visible(b"\n"), visible(b"\xc3")
    ('␣caf', '⏎', '\\xc3')
    """
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(MARKS.get(c, c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)


def token_labels(tokenizer: Tokenizer | None, ids: npt.ArrayLike) -> list[str]:
    """What to write for each token of a row; the ids themselves for a model that came without a vocabulary."""
    row = np.ravel(ids).tolist()
    return [str(id) if tokenizer is None else visible(tokenizer.decode_bytes([id])) for id in row]


def tokens(tokenizer: Tokenizer, text: str) -> list[Token]:
    """How a text splits: the tokens, their bytes, and the merges that made each of them.

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


def read_ids(model: GPT2, text: Prompt) -> Array:
    """The ids of a text, or a row of ids, as a batch of one: `[1, n_seq]`.

    Raises:
        ValueError: there is no text, or too much of it for the model's context; or these are not ids of it.
    """
    ids = require(model.tokenizer).encode(text) if isinstance(text, str) else text
    if len(ids) == 0:
        raise ValueError("there is no text to look at: give one, in quotes")
    batch = check_ids(ids, model.hparams)
    if len(batch) > 1:
        raise ValueError("one text is looked at, and this is several")
    check_fits(batch, model.hparams)
    return batch


class Chance(NamedTuple):
    """How likely a token is to come next."""

    id: int
    probability: float  # as the model says
    drawn: float  # after temperature, top-k and top-p


def next_tokens(
    model: GPT2, text: Prompt, n: int = 10, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> list[Chance]:
    """The n likeliest tokens to follow a text, the likeliest first.

    Args:
        model: the model.
        text: what they follow.
        n: how many.
        temperature, top_k, top_p: as for `GPT2.generate`; a temperature of 0 leaves only the likeliest.

    Raises:
        ValueError: the text is empty or too long, or an option is out of its range.
    """
    check_sampling(temperature, top_k, top_p)
    logits = model.logits(read_ids(model, text))[0, -1].astype(np.float64)
    drawn = softmax(adjust(logits, temperature, top_k, top_p) if temperature else adjust(logits, top_k=1))
    probabilities = softmax(logits)
    likeliest = np.argsort(-logits, kind="stable")[:n].tolist()
    return [Chance(id, float(probabilities[id]), float(drawn[id])) for id in likeliest]


def attention_weights(model: GPT2, text: Prompt, layer: int | None = None) -> Array:
    """Who looks at whom: the attention weights of all heads. Row i has the weights with which token i looks at each.

    Shapes: to `[n_layer, n_head, n_seq, n_seq]`; with a layer, those of its block, `[n_head, n_seq, n_seq]`.

    Raises:
        ValueError: as `read_ids`; so do those below.
    """
    with trace("h*/attn/weights" if layer is None else f"h{layer}/attn/weights") as t:
        model.hidden_states(read_ids(model, text))
    weights = np.concatenate([*t.values()])
    return weights if layer is None else weights[0]


def unmasked_weights(model: GPT2, text: Prompt, layer: int) -> Array:
    """The weights that the heads of one block would have without the mask, with which each token sees all others.

    Queries and keys are those of the masked model: so it is what the mask hides, and not what a model that
    was trained without it would do. With the identity matrix as values, what attention returns is its weights.

    Shapes: to `[n_head, n_seq, n_seq]`.
    """
    with trace([f"h{layer}/attn/q", f"h{layer}/attn/k"]) as t:
        model.hidden_states(read_ids(model, text))
    q, k = t.values()
    n_seq = q.shape[-2]
    return attention(q, k, np.eye(n_seq, dtype=q.dtype), np.ones((n_seq, n_seq), bool))[0]


class Habits(NamedTuple):
    """Where one head looks, averaged over the tokens of a text but for the first, which can only see itself."""

    first: float  # the weight on the first token
    itself: float
    previous: float  # the weight on the token before
    distance: float  # how many tokens back, by weight


def habits(weights: Array) -> Habits:
    """Where a head looks.

    Shapes: `[n_seq, n_seq]`, of two tokens or more.

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

    ids: Array  # the likeliest, [n_layer + 1, n_seq]: row 0 is before the first block
    probabilities: Array  # theirs, the same shape


def logit_lens(model: GPT2, text: Prompt) -> Lens:
    """What each layer would predict: the output head, applied to what enters each block, and to what leaves the last.

    Shapes: to `[n_layer + 1, n_seq]`.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    found, chances = [], []
    *states, last = hidden_states(read_ids(model, text), model.params, model.hparams.n_head)
    for x in [*(layer_norm(x, model.params.ln_f) for x in states), last]:
        probabilities = softmax(output_head(x[0], model.params))  # [n_seq, n_vocab]
        found.append(to_host(np.argmax(probabilities, axis=-1)))
        chances.append(to_host(np.max(probabilities, axis=-1)))
    return Lens(np.stack(found), np.stack(chances))


def position_similarity(params: Params) -> Array:
    """How similar each position's embedding is to each other's: the cosine of the angle between the two.

    Shapes: to `[n_ctx, n_ctx]`.
    """
    wpe = to_host(params.wpe)
    length = np.sqrt(np.sum(wpe * wpe, axis=-1, keepdims=True))
    unit = wpe / np.maximum(length, np.finfo(wpe.dtype).tiny)
    return unit @ unit.T


def parameter(params: Params, name: str) -> Array:
    """A parameter by its name in the checkpoint, or a slice of it: `h1/attn/c_attn/w[:300,:300]`.

    Raises:
        ValueError: there is no such parameter, or it cannot be sliced so.

    >>> import numpy_gpt2
    >>> parameter(numpy_gpt2.load("tiny").params, "h1/attn/c_attn/w[:300, 5]").shape
    (256,)
    """
    whole = dict(named_arrays(params))
    match = re.fullmatch(r"\s*([^\[\]]*?)\s*(?:\[(.*)\])?\s*", name)
    if not match:
        raise ValueError(f"{name!r} is not a name, or a name and a slice such as [:300,:300]")
    if match[1] not in whole:
        close = [f"; did you mean {each!r}?" for each in difflib.get_close_matches(match[1], whole, n=1)]
        raise ValueError(f"there is no parameter {match[1]!r}{''.join(close)} (`explore params` lists all)")
    array = to_host(whole[match[1]])
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
    """The root mean square of what is in the residual stream after each block, and of what each part added to it."""

    stream: Array  # [n_layer]
    attention: Array  # [n_layer]
    mlp: Array  # [n_layer]


def stream_sizes(model: GPT2, text: Prompt) -> Sizes:
    """How large the residual stream grows, and how much attention and MLP of each block add.

    Shapes: to three times `[n_layer]`.
    """
    blocks = [f"h{i}" for i in range(model.hparams.n_layer)]
    with trace([b + part for b in blocks for part in ("", "/attn", "/mlp")]) as t:
        model.hidden_states(read_ids(model, text))
    return Sizes(*(np.array([root_mean_square(t[b + part]) for b in blocks]) for part in ("", "/attn", "/mlp")))


def root_mean_square(x: Array) -> float:
    """The square root of the mean of the squares.

    >>> root_mean_square(np.array([3.0, -4.0, 0.0, 0.0]))
    2.5
    """
    return float(np.sqrt(np.mean(x * x)))
