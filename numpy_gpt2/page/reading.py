"""What the model thinks of a text, token by token, as plain data."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import checks, layers, model
from ..cache import Past
from ..decoding import prefill
from ..evaluation.scoring import windows
from ..gpt2 import GPT2
from ..machine.backend import to_host
from ..params import Array
from ..tokenizer import Tokenizer

Line: TypeAlias = dict[str, Any]  # of an answer
TOKENS_AT_ONCE = 64  # that are read in one step: few, so that it is short


def predictions(ids: Sequence[int], gpt2: GPT2) -> Iterator[Array]:
    """The logits from which each token but the first is predicted, a few at a time.

    A text longer than the context is read in windows, as `scoring.score` does with half of the context as the stride.

    Returns:
        An iterator of parts of `[n_seq - 1, n_vocab]`. A step that reads only what was predicted before gives a part
        without rows.

    Raises:
        ValueError: the logits are not finite numbers.
    """
    params, n_head, n_ctx = gpt2.params, gpt2.hparams.n_head, gpt2.hparams.n_ctx
    past = Past(params, n_head)
    for begin, first, end in windows(len(ids), n_ctx, stride=max(1, n_ctx // 2)):
        past.lengths[:] = 0
        for start in range(begin, end - 1, TOKENS_AT_ONCE):
            batch = np.array([ids[start : min(start + TOKENS_AT_ONCE, end - 1)]])  # [1, n_seq]
            x = prefill.read(batch, params, n_head, past)[0]
            new = x[max(0, first - 1 - start) :]  # token j is predicted by the vector of token j - 1
            yield to_host(checks.check_finite(model.output_head(new, params)))


def next_logits(ids: Sequence[int], gpt2: GPT2) -> Iterator[Array]:
    """The logits of what follows a text, which is read a few tokens at a time.

    Returns:
        An iterator of `[n, n_vocab]`, with one row in the last step and none in those before.

    Raises:
        ValueError: the logits are not finite numbers.
    """
    params, n_head = gpt2.params, gpt2.hparams.n_head
    past = Past(params, n_head, capacity=len(ids))
    for start in range(0, len(ids), TOKENS_AT_ONCE):
        x = prefill.read(np.array([ids[start : start + TOKENS_AT_ONCE]]), params, n_head, past)[0]
        last = x[len(ids) - 1 - start :]
        yield to_host(checks.check_finite(model.output_head(last, params)))


def named(id: int, tokenizer: Tokenizer) -> Line:
    """The id and the text of a token; its bytes as well, if they are not whole characters."""
    data = tokenizer.decode_bytes([id])
    text = data.decode("utf-8", errors="replace")
    return {"id": id, "text": text} | ({} if text.encode() == data else {"bytes": [*data]})


def placed(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[Line]:
    """Each token of a text with its place, from `begin` to `end`, in UTF-16 code units, as JavaScript counts.

    A character of several tokens belongs to the last of them.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    end = 0
    for id in ids:
        begin = end
        end += len(decoder.decode(tokenizer.decode_bytes([id])).encode("utf-16-le")) // 2
        yield {**named(id, tokenizer), "begin": begin, "end": end}


def judged(id: int, logits: Array, n_alternatives: int, tokenizer: Tokenizer) -> Line:
    """The probability and the rank of a token, 1 for the likeliest, and the tokens that are likeliest there.

    Shapes: logits `[n_vocab]`.
    """
    probabilities = layers.softmax(logits.astype(np.float64))
    return {
        "probability": float(probabilities[id]),
        "rank": 1 + int(np.count_nonzero(logits > logits[id])),
        "alternatives": [
            {**named(other, tokenizer), "probability": float(probabilities[other])}
            for other in likeliest(logits, n_alternatives)
        ],
    }


def likeliest(logits: Array, n: int) -> list[int]:
    """The n tokens with the largest logits, the largest first; fewer, if there are not so many.

    Shapes: logits `[n_vocab]`.
    """
    n = min(n, len(logits))
    some = np.argpartition(-logits, n - 1)[:n] if n else np.array([], int)
    return [int(id) for id in some[np.lexsort((some, -logits[some]))]]


def chances(logits: Array, adjusted: Array, n: int, tokenizer: Tokenizer) -> Line:
    """A distribution before and after the sampling options: `Answers.distribution` says what is in it.

    Args:
        logits: those of the model, minus infinity for what cannot follow, `[n_vocab]`.
        adjusted: those with which a token is drawn, `[n_vocab]`.
        n: how many tokens of each to list.
        tokenizer: knows the tokens.
    """
    probabilities, drawn = (layers.softmax(each.astype(np.float64)) for each in (logits, adjusted))
    kept = [id for id in likeliest(adjusted, n) if adjusted[id] > -np.inf]
    listed = {*likeliest(logits, n), *kept}
    tokens = [
        {**named(id, tokenizer), "probability": float(probabilities[id]), "drawn": float(drawn[id])}
        for id in likeliest(logits, len(logits))
        if id in listed and logits[id] > -np.inf
    ]
    others = np.ones(len(logits), bool)
    others[[token["id"] for token in tokens]] = False
    return {
        "tokens": tokens,
        "n_kept": int(np.count_nonzero(adjusted > -np.inf)),
        "others": {"probability": float(probabilities[others].sum()), "drawn": float(drawn[others].sum())},
    }
