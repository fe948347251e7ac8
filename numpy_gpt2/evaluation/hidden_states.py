"""The hidden states: the residual stream between the blocks."""

from __future__ import annotations

from .. import layers
from ..decoding import prefill
from ..params import Array, Params


def hidden_states(ids: Array, params: Params, n_head: int, token_type_ids: Array | None = None) -> list[Array]:
    """What enters each block, and last, normalised, what leaves the last one.

    Shapes: `[n_batch, n_seq]` to n_layer + 1 times `[n_batch, n_seq, n_embd]`.
    Source: `GPT2Model` in Hugging Face's transformers, with `output_hidden_states`.
    """
    x = prefill.embed(ids, params, token_type_ids=token_type_ids)
    states = []
    for block in params.h:
        states.append(x)
        x = layers.block(x, block, n_head)
    return [*states, layers.layer_norm(x, params.ln_f)]
