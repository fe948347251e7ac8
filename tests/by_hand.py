"""A pass by hand: every array that has a name, written down once more, one step after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numpy_gpt2.params import Array, Params


def block_names(i: int) -> list[str]:
    """The names of a block, in the order of computation. These names are a promise to users."""
    layer_norm = ["centred", "variance", ""]
    attention = ["c_attn", "qkv", "q", "k", "v", "mask", "scores", "e", "weights", "a", "c_proj"]
    names = [
        *(f"ln_1/{x}" for x in layer_norm),
        *(f"attn/{x}" for x in attention),
        "x",
        *(f"ln_2/{x}" for x in layer_norm),
        *(f"mlp/{x}" for x in ("c_fc", "hidden", "c_proj")),
        "",
    ]
    return [f"h{i}/{name}".rstrip("/") for name in names]


def part_names(n_layer: int) -> list[str]:
    """Every name, in the order of computation."""
    blocks = [name for i in range(n_layer) for name in block_names(i)]
    return ["positions", "x", *blocks, "ln_f/centred", "ln_f/variance", "ln_f", "logits"]


def unchanged(name: str, array: Array) -> Array:
    return array


def by_hand(
    params: Params, n_head: int, ids: Array, change: Callable[[str, Array], Array] = unchanged
) -> dict[str, Array]:
    """Every named array of a pass, computed step by step in float64. What `change` makes of an array goes on."""
    found: dict[str, Array] = {}
    n_seq = ids.shape[1]

    def note(name: str, array: Array) -> Array:
        found[name] = change(name, array)
        return found[name]

    def heads(x: Array) -> Array:
        return np.stack(np.split(x, x.shape[-1] // (params.wte.shape[1] // n_head), axis=-1), axis=1)

    def norm(name: str, x: Array, p: Any) -> Array:
        centred = note(f"{name}/centred", x - x.mean(-1, keepdims=True))
        variance = note(f"{name}/variance", np.square(centred).sum(-1, keepdims=True) / x.shape[-1])
        return note(name, centred / np.sqrt(variance + 1e-5) * p.g + p.b)

    positions = note("positions", np.arange(n_seq))
    x = note("x", np.array([[params.wte[id] + params.wpe[positions[i]] for i, id in enumerate(row)] for row in ids]))
    for i, block in enumerate(params.h):
        h, at = f"h{i}", f"h{i}/attn"
        c_attn = note(f"{at}/c_attn", norm(f"{h}/ln_1", x, block.ln_1) @ block.attn.c_attn.w + block.attn.c_attn.b)
        parts = np.split(note(f"{at}/qkv", heads(c_attn)), 3, axis=1)
        q, k, v = (note(f"{at}/{name}", part) for name, part in zip("qkv", parts, strict=True))
        mask = note(f"{at}/mask", np.tril(np.ones((n_seq, n_seq), bool)))
        scores = np.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
        scores = note(f"{at}/scores", np.where(mask, scores, -np.inf))
        e = note(f"{at}/e", np.exp(scores - scores.max(-1, keepdims=True)))
        weights = note(f"{at}/weights", e / e.sum(-1, keepdims=True))
        a = note(f"{at}/a", np.einsum("bhqk,bhkd->bhqd", weights, v))
        merged = np.concatenate([*np.moveaxis(a, 1, 0)], axis=-1)
        added = note(f"{at}/c_proj", merged @ block.attn.c_proj.w + block.attn.c_proj.b)
        x = note(f"{h}/x", x + added)
        u = note(f"{h}/mlp/c_fc", norm(f"{h}/ln_2", x, block.ln_2) @ block.mlp.c_fc.w + block.mlp.c_fc.b)
        gelu = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        added = note(f"{h}/mlp/c_proj", note(f"{h}/mlp/hidden", gelu) @ block.mlp.c_proj.w + block.mlp.c_proj.b)
        x = note(h, x + added)
    note("logits", norm("ln_f", x, params.ln_f) @ params.wte.T)
    return found
