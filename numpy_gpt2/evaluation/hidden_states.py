"""The hidden states: the residual stream between the blocks."""

from __future__ import annotations

import numpy as np

from .. import layers
from ..cache import Past
from ..decoding import prefill
from ..params import Array, Params


def hidden_states(ids: Array, params: Params, n_head: int, token_type_ids: Array | None = None) -> list[Array]:
    """What enters each block, and last, normalised, what leaves the last one.

    Shapes: `[n_batch, n_seq]` to n_layer + 1 times `[n_batch, n_seq, n_embd]`.
    Source: `GPT2Model` in Hugging Face's transformers, with `output_hidden_states`.
    """
    pieces = prefill.run_on_pieces(all_states, ids, params, n_head, token_type_ids=token_type_ids)
    return [np.concatenate(states, axis=1) for states in zip(*pieces, strict=True)]


def all_states(x: Array, params: Params, n_head: int, past: Past | None = None) -> list[Array]:
    """Like `model.transformer`, but returns all hidden states, not only the last.

    Shapes: `[n_batch, n_seq, n_embd]` to n_layer + 1 times the same.
    """
    n_seq = x.shape[1]
    layer_pasts = [None] * len(params.h) if past is None else past.layers(n_seq)
    states = []
    for block, layer_past in zip(params.h, layer_pasts, strict=True):
        states.append(x)
        x = layers.block(x, block, n_head, layer_past)
    if past is not None:
        past.lengths += n_seq
    return [*states, layers.layer_norm(x, params.ln_f)]
