"""Experiments: plain functions of a model and texts that return arrays. `figures.py` draws them.

`ablation`, `activation_patching` and `attribution` ask what the parts of a model do for one prediction: that of the
token that follows a text. `head_scores` asks where each head looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from .. import checks, layers, model
from ..decoding import prefill
from ..decoding.prompts import Prompt, require
from ..gpt2 import GPT2
from ..machine.backend import to_host
from ..machine.threads import fitting
from ..params import Array, Attention, count_params
from .patches import Change, Patcher, Replacement, zero
from .recorder import trace
from .tables import attention_weights, habits, read_ids, token_labels
from .watcher import observed_by

Token: TypeAlias = str | int  # a text that is one token, or its id


class Question(NamedTuple):
    """The prediction that is measured: how likely one token is to follow, or how it compares with another."""

    token: int
    other: int | None = None

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        return [self.token] if self.other is None else [self.token, self.other]

    def measure(self, logits: Array) -> Array:
        """The log-probability of the token or, with another one, how far its logit is above that of the other.

        Shapes: `[..., n_vocab]` to `[...]`.
        """
        if self.other is None:
            return layers.log_softmax(logits)[..., self.token]
        return logits[..., self.token] - logits[..., self.other]


def ask(gpt2: GPT2, ids: Array, token: Token | None, other: Token | None, position: int = -1) -> Question:
    """The prediction to measure: that of the token or, by default, that of the likeliest one.

    Shapes: ids `[1, n_seq]`.

    Raises:
        ValueError: token or other is not one token of the model, or they are the same.
    """
    chosen = int(np.argmax(last_logits(gpt2, ids, position))) if token is None else token_id(gpt2, token)
    compared = None if other is None else token_id(gpt2, other)
    if chosen == compared:
        raise ValueError(f"the token and the other are the same, {token_labels(gpt2.tokenizer, [chosen])[0]!r}")
    return Question(chosen, compared)


def token_id(gpt2: GPT2, token: Token) -> int:
    """The id of a token, given as its text or as its id.

    Raises:
        ValueError: it is not one token of the model.

    >>> import numpy_gpt2
    >>> token_id(numpy_gpt2.load("tiny"), " he")
    275
    """
    if not isinstance(token, str):
        return checks.check_whole_number("token", token, at_most=gpt2.hparams.n_vocab - 1)
    tokenizer = require(gpt2.tokenizer)
    ids = tokenizer.encode(token, allow_special=True)
    if len(ids) == 1:
        return ids[0]
    hint = f"; did you mean {' ' + token!r}?" if ids and len(tokenizer.encode(" " + token)) == 1 else ""
    raise ValueError(f"{token!r} is not one token but {len(ids)}: {token_labels(tokenizer, ids)}{hint}")


def last_logits(gpt2: GPT2, ids: Array, position: int = -1) -> Array:
    """The logits of the tokens that follow texts of the same length, or that follow a position in them.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_vocab]`.

    Raises:
        ValueError: they are not finite numbers.
    """
    with fitting(count_params(gpt2.hparams)):
        x = prefill.read(ids, gpt2.params, gpt2.hparams.n_head)[:, position]  # [n_batch, n_embd]
        return to_host(checks.check_finite(model.output_head(x, gpt2.params)))


def predict(
    gpt2: GPT2, ids: Array, question: Question, changes: Mapping[str, Replacement] = MappingProxyType({})
) -> list[float]:
    """The predictions for texts of the same length, with changes as for `patch`, which may make no difference.

    Shapes: ids `[n_batch, n_seq]` to n_batch numbers.
    """
    patcher = Patcher(changes)
    with observed_by(patcher):
        predictions: list[float] = question.measure(last_logits(gpt2, ids)).tolist()
    patcher.check_used()
    return predictions


def no_progress(n: int = 1) -> None:
    """Reports nothing."""


class Ablation(NamedTuple):
    """How a prediction changes when one part is switched off. Without a part that helps it, the prediction is lower."""

    question: Question
    whole: float  # the prediction of the whole model
    heads: Array  # the change without this head, [n_layer, n_head]
    mlps: Array  # the change without this MLP, [n_layer]


def ablation(
    gpt2: GPT2,
    text: Prompt,
    token: Token | None = None,
    other: Token | None = None,
    change: Change = zero,
    progress: Callable[[int], object] = no_progress,
) -> Ablation:
    """Switches off each head and each MLP, one at a time.

    Args:
        gpt2: the model.
        text: what the token follows.
        token: the token whose log-probability is measured, as text or as id; by default the likeliest.
        other: a token to compare it with; then the difference of their logits is measured.
        change: what is done to what a part computes: `zero`, or another change, such as `mean` or `put(average)` with
            the average over other texts.
        progress: called with the number 1 after each pass with a part switched off.

    Raises:
        TypeError: change is something else.
        ValueError: the text is empty or too long for the model's context, token or other is not one token, or they are
            the same.

    Source: for heads, Michel et al. 2019, "Are Sixteen Heads Really Better than One?"; for the average over other
    texts, Wang et al. 2022, "Interpretability in the Wild", section 2.1. `mean` stays within the text.
    """
    if not isinstance(change, Change):
        raise TypeError(f"change must be a change such as zero, mean or scale(0.5), not {type(change).__name__}")
    ids = read_ids(gpt2, text)
    question = ask(gpt2, ids, token, other)
    whole = predict(gpt2, ids, question)[0]

    def without(name: str, change: Change) -> float:
        prediction = predict(gpt2, ids, question, {name: change})[0]
        progress(1)
        return prediction - whole

    blocks, heads = range(gpt2.hparams.n_layer), range(gpt2.hparams.n_head)
    return Ablation(
        question,
        whole,
        heads=np.array([[without(f"h{i}/attn/a", change.of_head(j)) for j in heads] for i in blocks]),
        mlps=np.array([without(f"h{i}/mlp", change) for i in blocks]),
    )


TOKENS_AT_ONCE = 2048  # of the texts in a batch, each of which has a patch at another position


class Patching(NamedTuple):
    """How a prediction for one text changes when it gets what another text has at one place."""

    question: Question
    clean: float  # the prediction after the text that activations are taken from,
    corrupted: float  # and after the text that they are put into
    names: list[str]  # of the arrays that are patched
    patched: Array  # the prediction after the patch of one array at one position, [len(names), n_seq]

    @property
    def restored(self) -> Array:
        """Which share of the difference between the texts each patch restores: 0 is none of it, 1 all."""
        return (self.patched - self.corrupted) / (self.clean - self.corrupted)


Part: TypeAlias = Literal["stream", "attention", "mlp"]


def activation_patching(
    gpt2: GPT2,
    clean: Prompt,
    corrupted: Prompt,
    token: Token | None = None,
    other: Token | None = None,
    part: Part = "stream",
    progress: Callable[[int], object] = no_progress,
) -> Patching:
    """Puts activations of one text into another, one layer and one position at a time.

    Where that brings back the prediction of the first text, the information that makes the difference passes.

    Args:
        gpt2: the model.
        clean: the text that activations are taken from.
        corrupted: the text that they are put into, of the same number of tokens.
        token: the token whose log-probability is measured, as text or as id; by default the likeliest after `clean`.
        other: a token to compare it with; then the difference of their logits is measured.
        part: which activations: `"stream"`, the residual stream before the blocks and after each of them;
            `"attention"` or `"mlp"`, what that part of each block adds to the stream.
        progress: called with the number of elements of the result that have been found since the last call.

    Raises:
        ValueError: as for `ablation`; or the texts have different lengths or the same prediction, or there is no such
            part.

    Source: Vig et al. 2020, "Causal Mediation Analysis for Interpreting Neural NLP"; Meng et al. 2022, "Locating and
    Editing Factual Associations in GPT", section 2, "causal tracing".
    """
    source, ids = read_ids(gpt2, clean), read_ids(gpt2, corrupted)
    if source.shape != ids.shape:
        raise ValueError(
            f"the texts must have the same number of tokens, and have {source.shape[1]} and {ids.shape[1]} "
            "(`explore tokens` shows them)"
        )
    question = ask(gpt2, source, token, other)
    names = part_names(part, gpt2.hparams.n_layer)
    with trace(names) as t:
        (expected,) = predict(gpt2, source, question)
    (before,) = predict(gpt2, ids, question)
    if expected == before:
        raise ValueError("the prediction is the same after both texts: there is nothing to restore")
    n_seq = ids.shape[1]
    found = np.full((len(names), n_seq), before)
    first = int(np.argmax(source != ids))  # up to there, both texts are the same, and nothing is restored
    progress(first * len(names))
    n_at_once = max(1, TOKENS_AT_ONCE // n_seq)
    for row, name in enumerate(names):
        for begin in range(first, n_seq, n_at_once):
            positions = np.arange(begin, min(begin + n_at_once, n_seq))
            one_each = put_one_each(t[name], positions)
            found[row, positions] = predict(gpt2, np.repeat(ids, len(positions), axis=0), question, {name: one_each})
            progress(len(positions))
    return Patching(question, expected, before, names, found)


def put_one_each(values: Array, positions: Array) -> Callable[[Array], None]:
    """A change that puts values into the rows of a batch: into each row, those of one position.

    Shapes: values `[1, n_seq, n_embd]`, positions `[n_batch]`.
    """

    def change(array: Array) -> None:
        array[np.arange(len(positions)), positions] = np.asarray(values[0, positions], like=array)

    return change


def part_names(part: Part, n_layer: int) -> list[str]:
    """The names of the arrays to patch.

    Raises:
        ValueError: there is no such part.

    >>> part_names("stream", 2), part_names("mlp", 2)
    (['x', 'h0', 'h1'], ['h0/mlp', 'h1/mlp'])
    """
    if part == "stream":
        return ["x", *(f"h{i}" for i in range(n_layer))]
    endings = {"attention": "attn", "mlp": "mlp"}
    if part not in endings:
        raise ValueError(f"part must be stream, attention or mlp, not {part!r}")
    return [f"h{i}/{endings[part]}" for i in range(n_layer)]


class Attribution(NamedTuple):
    """The terms of which a logit, or the difference of two logits, is the sum."""

    question: Question
    token_embedding: float
    position_embedding: float
    heads: Array  # [n_layer, n_head]
    biases: Array  # of c_proj in each attention, [n_layer]
    mlps: Array  # [n_layer]
    last_bias: float  # of ln_f

    @property
    def total(self) -> float:
        """The sum of all terms: the logit."""
        return sum(float(np.sum(term)) for term in self[1:])


def attribution(
    gpt2: GPT2, text: Prompt, token: Token | None = None, other: Token | None = None, position: int = -1
) -> Attribution:
    """What each part of the model adds to the logit of the token that follows a text: direct logit attribution.

    What leaves the last block, x, is the sum of the embeddings and of what each head and each MLP adds. The last layer
    norm divides by the deviation of x. With this number given, layer norm and output head are linear: the logit is

        sum over parts of  (g (part - mean(part)) / sqrt(var(x) + 1e-5)) wte[token]  +  b wte[token]

    That is the direct effect of a part, without what later parts make of its result.

    Args:
        gpt2: the model.
        text: what the token follows.
        token: the token, as text or as id; by default the likeliest.
        other: a token whose logit is subtracted.
        position: that of the token in the text which they follow; by default the last.

    Raises:
        IndexError: the text has no such position.
        ValueError: as for `ablation`; or the terms do not sum to the logit, since a patch or a function that was
            replaced makes something else of the parts.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; nostalgebraist 2020, "interpreting
    GPT: the logit lens".
    """
    ids = read_ids(gpt2, text)
    question, params = ask(gpt2, ids, token, other, position), gpt2.params
    blocks = [f"h{i}" for i in range(gpt2.hparams.n_layer)]
    with trace([f"{h}{part}" for h in blocks for part in ("/attn/a", "/mlp", "")]) as t:
        logits = last_logits(gpt2, ids, position)[0]
    direction = to_host(params.wte[question.token]).astype(np.float64)  # [n_embd]
    if question.other is not None:
        direction = direction - to_host(params.wte[question.other])
    deviation = math.sqrt(t[blocks[-1]][0, position].var(dtype=np.float64) + 1e-5)

    def terms(parts: Array) -> Array:
        """What vectors add to the logit, `[..., n_embd]` to `[...]`."""
        centred = parts - parts.mean(axis=-1, keepdims=True)
        return (to_host(params.ln_f.g) * centred / deviation) @ direction

    found = Attribution(
        question,
        token_embedding=float(terms(to_host(params.wte[int(ids[0, position])]))),
        position_embedding=float(terms(to_host(params.wpe[range(ids.shape[1])[position]]))),
        heads=terms(
            np.stack(
                [head_outputs(t[f"{h}/attn/a"][0, :, position], b.attn) for h, b in zip(blocks, params.h, strict=True)]
            )
        ),
        biases=terms(np.stack([to_host(block.attn.c_proj.b) for block in params.h])),
        mlps=terms(np.stack([t[f"{h}/mlp"][0, position] for h in blocks])),
        last_bias=float(to_host(params.ln_f.b) @ direction),
    )
    check_sum(found, logits)
    return found


def head_outputs(a: Array, params: Attention) -> Array:
    """What each head adds to the residual stream at a position: its part of c_proj.

    Shapes: a `[n_head, d_head]` to `[n_head, n_embd]`.
    """
    n_head, d_head = a.shape
    rows = to_host(params.c_proj.w).reshape(n_head, d_head, -1)
    return np.einsum("hd,hde->he", a, rows)


def check_sum(found: Attribution, logits: Array) -> None:
    """Checks that the terms sum to the logit, to rounding error.

    Shapes: logits `[n_vocab]`.

    Raises:
        ValueError: they do not.
    """
    logit = float(logits[found.question.token])
    if found.question.other is not None:
        logit -= float(logits[found.question.other])
    size = sum(float(np.sum(np.abs(term))) for term in found[1:])
    if abs(found.total - logit) > 1000 * float(np.finfo(logits.dtype).eps) * size:
        raise ValueError(
            f"the terms sum to {found.total:.4f}, but the model's value is {logit:.4f}: a patch or a replaced function "
            "makes something else of the parts than GPT-2 does"
        )


class HeadScores(NamedTuple):
    """The average weight that each head gives to certain tokens of a text that comes twice; all `[n_layer, n_head]`."""

    first: Array  # the first token
    itself: Array  # the token itself
    previous: Array  # the token before it
    duplicate: Array  # of a token in the second copy: the same token in the first
    induction: Array  # of a token in the second copy: the token that followed it in the first


N_RANDOM = 48  # random ids, or as many as fit into the context twice


def head_scores(gpt2: GPT2, text: Prompt | None = None, seed: int = 0) -> HeadScores:
    """Where each head looks, when the model reads a text twice.

    An induction head looks at what followed an earlier copy of the token. Such heads let a model repeat what it has
    read. Random ids are the strictest test, since nothing else helps to predict the second copy. A small model may pass
    it only on text of the kind that it was trained on.

    Args:
        gpt2: the model.
        text: what is read twice; by default random ids.
        seed: that of the random ids.

    Raises:
        ValueError: there are fewer than two tokens, or more than half of the model's context.

    Source: Olsson et al. 2022, "In-context Learning and Induction Heads"; for duplicate tokens, Wang et al. 2022,
    "Interpretability in the Wild", section 3.
    """
    n_most = gpt2.hparams.n_ctx // 2
    if n_most < 2:
        raise ValueError(f"a context of {gpt2.hparams.n_ctx} tokens is too short for a text that comes twice")
    once = random_ids(gpt2, seed) if text is None else read_ids(gpt2, text)[0].tolist()
    n = len(once)
    if not 2 <= n <= n_most:
        raise ValueError(f"a text of 2 to {n_most} tokens can be read twice, and this has {n}")
    weights = attention_weights(gpt2, once + once)  # [n_layer, n_head, 2 * n, 2 * n]
    found = [[habits(of_head)[:3] for of_head in of_block] for of_block in weights]
    first, itself, previous = np.moveaxis(np.array(found), -1, 0)

    def in_second_copy(distance: int) -> Array:
        """The average weight on the token so far back."""
        return np.diagonal(weights[:, :, n:], n - distance, axis1=-2, axis2=-1).mean(axis=-1)

    return HeadScores(first, itself, previous, duplicate=in_second_copy(n), induction=in_second_copy(n - 1))


def random_ids(gpt2: GPT2, seed: int = 0) -> list[int]:
    """Random ids, all different if the model has enough, that fit into its context twice."""
    n, n_vocab = min(N_RANDOM, gpt2.hparams.n_ctx // 2), gpt2.hparams.n_vocab
    return np.random.default_rng(seed).choice(n_vocab, n, replace=n_vocab < n).tolist()
