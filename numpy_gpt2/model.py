"""The model: from token ids to logits, a score for every token that may come next.

A text is a row of tokens, pieces of words; the id of a token is its number in the vocabulary. On the way:

    token ids                            [n_batch, n_seq]
    token and position embeddings        [n_batch, n_seq, n_embd]
    after each of the n_layer blocks     [n_batch, n_seq, n_embd]
    after the last layer norm            [n_batch, n_seq, n_embd]
    logits                               [n_batch, n_seq, n_vocab]    row i scores what follows token i

With a `Past`, which keeps the keys and values of the tokens read so far, the ids continue its texts: a new
token is read alone.

Source: `model` in OpenAI's `src/model.py`.
"""

from __future__ import annotations

import numpy as np

from . import layers
from .cache import Past
from .machine.products import product
from .params import Array, Params


def logits(ids: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """The whole model. The softmax of row i gives the probability of each token to come right after `ids_i`.

    With a past, the ids continue its texts, and are added to it.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_vocab]`.
    """
    x = embed(ids, params, past)
    x = transformer(x, params, n_head, past)
    return output_head(x, params)


def embed(ids: Array, params: Params, past: Past | None = None) -> Array:
    """Gives each token the sum of two vectors: one for the token and one for its position.

    embed(ids)_i = wte[ids_i] + wpe[position_i]

    Apart from the mask, attention knows nothing of order, so the vector itself has to say where its token stands.

    Shapes: `[n_batch, n_seq]` to `[n_batch, n_seq, n_embd]`.
    Source: Vaswani et al. 2017, section 3.5, where the position vectors are not learned.
    """
    n_seq = ids.shape[1]
    positions = np.arange(n_seq, like=params.wpe) if past is None else past.positions(n_seq)
    x = params.wte[ids] + params.wpe[positions]
    return x


def transformer(x: Array, params: Params, n_head: int, past: Past | None = None) -> Array:
    """Runs the blocks one after another, then a last layer norm. The tokens are added to the past.

    Shapes: `[n_batch, n_seq, n_embd]` to `[n_batch, n_seq, n_embd]`.
    Source: Radford et al. 2019, section 2.3.
    """
    n_seq = x.shape[1]
    layer_pasts = [None] * len(params.h) if past is None else past.layers(n_seq)
    for block, layer_past in zip(params.h, layer_pasts, strict=True):
        x = layers.block(x, block, n_head, layer_past)
    if past is not None:
        past.lengths += n_seq
    return layers.layer_norm(x, params.ln_f)


def output_head(x: Array, params: Params) -> Array:
    """The logits: the dot product of each vector with the embedding of each token.

    output_head(x) = x wte^T

    The same matrix embeds the tokens and scores them ("tied" weights).

    Shapes: `[..., n_embd]` to `[..., n_vocab]`.
    Source: Vaswani et al. 2017, section 3.4.
    """
    logits = product(x, params.wte.T)
    return logits
