"""The double-heads model, whose second head tells which of several texts is the right one.

It is GPT-2 with one more linear map, from n_embd numbers to one. Several endings of a text, the choices, are read
side by side, each with a classification token somewhere. The map turns the vector of that token into a score, and
softmax turns the scores of the choices into probabilities.

Source: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", sections 3.2
and 3.3; `GPT2DoubleHeadsModel` in Hugging Face's transformers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import checks, layers, model
from ..decoding import prefill
from ..params import Array, HParams, Linear, Params
from . import scoring
from .scoring import IGNORED


class Choices(NamedTuple):
    """What a double-heads model reads, and the labels that it should predict."""

    ids: Array  # [n_batch, n_choices, n_seq]
    mc_token_ids: Array  # positions of the classification tokens, [n_batch, n_choices]
    token_type_ids: Array | None = None  # [n_batch, n_choices, n_seq]
    labels: Array | None = None  # for the language model, [n_batch, n_choices, n_seq]
    mc_labels: Array | None = None  # the right choices, [n_batch]


class DoubleHeads(NamedTuple):
    """The results of both heads; the names are those of `GPT2DoubleHeadsModel`."""

    loss: float | None  # of the language model, in nats per token; None without labels
    mc_loss: float | None  # of the multiple choice, in nats per choice; None without mc_labels
    logits: Array  # [n_batch, n_choices, n_seq, n_vocab]
    mc_logits: Array  # [n_batch, n_choices]


def double_heads(choices: Choices, params: Params, head: Linear, n_head: int) -> DoubleHeads:
    """Reads all choices as one batch, and applies both heads.

    Source: `GPT2DoubleHeadsModel.forward`.

    Raises:
        ValueError: the logits are not finite numbers.
    """
    ids, mc_token_ids, token_type_ids, labels, mc_labels = choices
    n_seq = ids.shape[-1]
    types = None if token_type_ids is None else token_type_ids.reshape(-1, n_seq)
    x = prefill.read(ids.reshape(-1, n_seq), params, n_head, token_type_ids=types)
    x = x.reshape(*ids.shape, -1)  # [n_batch, n_choices, n_seq, n_embd]
    logits = checks.check_finite(model.output_head(x, params))
    mc_logits = multiple_choice_head(x, mc_token_ids, head)
    return DoubleHeads(
        loss=None if labels is None else loss(logits[..., :-1, :], labels[..., 1:]),
        mc_loss=None if mc_labels is None else loss(mc_logits, mc_labels),
        logits=logits,
        mc_logits=mc_logits,
    )


def multiple_choice_head(x: Array, mc_token_ids: Array, params: Linear) -> Array:
    """Scores each choice by the vector of its classification token.

    multiple_choice_head(x)_c = linear(x_c,i), where i is the position of the classification token of choice c

    Shapes: x `[n_batch, n_choices, n_seq, n_embd]`, mc_token_ids `[n_batch, n_choices]` to `[n_batch, n_choices]`.
    Source: `GPT2SequenceSummary` in transformers, of the type `cls_index`.

    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    >>> multiple_choice_head(x, np.array([[1, 0]]), Linear(w=np.array([[1.0], [0.5]]), b=np.array([0.0])))
    array([[5., 8.]])
    """
    index = np.asarray(mc_token_ids, like=x)[..., None, None]
    tokens = np.take_along_axis(x, index, axis=-2)[..., 0, :]  # [n_batch, n_choices, n_embd]
    return layers.linear(tokens, params)[..., 0]


def loss(logits: Array, labels: Array) -> float:
    """The cross-entropy of the labels, some of which may be `IGNORED`.

    Shapes: logits `[..., n]`, labels `[...]`.
    """
    return scoring.cross_entropy(scoring.score_logits(logits, labels).log_probabilities, labels)


def check_choices(
    hparams: HParams,
    ids: npt.ArrayLike,
    mc_token_ids: npt.ArrayLike | None = None,
    token_type_ids: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    mc_labels: npt.ArrayLike | None = None,
) -> Choices:
    """Checks choices from outside. By default, the last token of each is its classification token.

    Raises:
        ValueError: an argument has the wrong shape, or a number in it is out of its range.
    """
    try:
        array = np.asarray(ids)
    except ValueError:
        raise ValueError("ids must be choices of the same length: pad the shorter ones on the right") from None
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"ids must have the shape [n_batch, n_choices, n_seq], not {list(array.shape)}")
    n_batch, n_choices, n_seq = array.shape
    checks.check_fits(checks.check_ids(array.reshape(-1, n_seq), hparams), hparams)

    def check(
        name: str, values: npt.ArrayLike | None, shape: tuple[int, ...], n: int, ignored: int | None = None
    ) -> Any:
        return None if values is None else checks.check_indices(name, values, shape, n, ignored)

    last = np.full((n_batch, n_choices), n_seq - 1)
    return Choices(
        ids=array,
        mc_token_ids=check("mc_token_ids", last if mc_token_ids is None else mc_token_ids, (n_batch, n_choices), n_seq),
        token_type_ids=check("token_type_ids", token_type_ids, array.shape, hparams.n_vocab),
        labels=check("labels", labels, array.shape, hparams.n_vocab, IGNORED),
        mc_labels=check("mc_labels", mc_labels, (n_batch,), n_choices, IGNORED),
    )
