"""Low-rank updates (LoRA): a matrix w of the model is frozen, and what is learned is a small change a b of it.

w' = w + a b,    a is [n_in, rank],    b is [rank, n_out]

This is a change of variables outside the layers, which see only w'. The chain rule gives the derivatives as for any
product of matrices:

d_a = d_w' b^T,    d_b = a^T d_w'

At first b is 0, so that the model is the one that was loaded, and a is random, so that b has a derivative. A rank of 8
has 2 % of the numbers of a matrix of 768 by 768, and so needs as little memory for the means of AdamW.

Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models", section 4.1, with a scale of 1. It adapts
the matrices of attention; here, those of the MLP are adapted as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..params import Array


class Adapters(NamedTuple):
    """Low-rank updates of some of the parameters."""

    base: dict[str, Array]  # the frozen matrices by their names, [n_in, n_out]
    arrays: dict[str, Array]  # what is learned: NAME/a, [n_in, rank], and NAME/b, [rank, n_out]

    def merge_into(self, params: Mapping[str, Array]) -> None:
        """Sets each of the matrices to w + a b."""
        for name, w in self.base.items():
            np.add(w, self.arrays[f"{name}/a"] @ self.arrays[f"{name}/b"], out=params[name])

    def gradients(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        """The derivatives of a and b, given those of the matrices."""
        found = {}
        for name in self.base:
            found[f"{name}/a"] = grads[name] @ self.arrays[f"{name}/b"].T
            found[f"{name}/b"] = self.arrays[f"{name}/a"].T @ grads[name]
        return found


def adapters(params: Mapping[str, Array], rank: int, seed: int) -> Adapters:
    """Adapters that change nothing yet.

    Args:
        params: the matrices to adapt, by name.
        rank: how many columns a has, and rows b.
        seed: of the random a, which has the standard deviation 1 / sqrt(n_in).
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, w in params.items():
        n_in, n_out = w.shape
        arrays[f"{name}/a"] = (rng.standard_normal((n_in, rank)) / math.sqrt(n_in)).astype(w.dtype)
        arrays[f"{name}/b"] = np.zeros((rank, n_out), w.dtype)
    return Adapters({name: w.copy() for name, w in params.items()}, arrays)
