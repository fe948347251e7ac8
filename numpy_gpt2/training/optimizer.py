"""From gradients to a step: clipping, AdamW, and a learning rate that rises and falls.

Parameters and gradients are given as a tree or as arrays by name, and changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from ..machine.workers import for_each_part
from ..params import Array, Params, named_arrays
from .gradients import is_wanted

Arrays: TypeAlias = Params | Mapping[str, Array]  # parameters or gradients, as a tree or by name


def arrays(tree: Arrays) -> Mapping[str, Array]:
    """The arrays of a tree by name."""
    return dict(named_arrays(tree)) if isinstance(tree, Params) else tree


def clip_by_global_norm(grads: Arrays, highest: float, n_threads: int = 1) -> float:
    """Shortens gradients, all by the same factor, so that their length is at most `highest`.

    norm = sqrt(sum of the squares of all derivatives)
    grads = grads * min(1, highest / norm)

    The direction of the step stays. A single odd text cannot throw the parameters far away.

    Returns:
        The norm before.

    Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", section 3.2.
    """
    computed = [(array,) for array in arrays(grads).values() if is_wanted(array)]
    norm = math.sqrt(sum(for_each_part(sum_of_squares, computed, n_threads)))
    if highest < norm < math.inf:

        def scale(part: Array) -> None:
            part *= highest / norm

        for_each_part(scale, computed, n_threads)
    return norm


def sum_of_squares(part: Array) -> float:
    """The sum of the squares of some numbers, of any shape."""
    return float(np.vdot(part, part))


class AdamW:
    """Adam with decoupled weight decay.

    For each parameter p with the derivative g, in step t = 1, 2, ...:

    m = beta1 m + (1 - beta1) g                  the mean of the last derivatives
    v = beta2 v + (1 - beta2) g^2                the mean of their squares
    p = p - rate * decay * p                     matrices only
    p = p - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    m / sqrt(v) is about 1 or -1 where the derivatives agree, and near 0 where they cancel out, whatever their size. So
    a step changes a parameter by about the learning rate at most. m and v begin at 0; the divisions correct the mean of
    the first steps for that.

    Decay pulls weights towards 0 in proportion to the learning rate. It leaves biases and the gains of layer norms
    alone, which are vectors: a smaller one does not make the model simpler. Parameters whose derivatives are not wanted
    (`gradients.Wanted`) stay as they are.

    Attributes:
        m, v: the means, by the name of the parameter, shaped like it.
        n_updates: t.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2; the defaults of the betas
    and the decay are those of GPT-3 (Brown et al. 2020, "Language models are few-shot learners", appendix B).
    """

    def __init__(
        self,
        params: Arrays,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        """Begins with m = v = 0, for these parameters."""
        named = arrays(params)
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        self.n_updates = 0
        self.m, self.v = ({name: np.zeros_like(array) for name, array in named.items()} for _ in range(2))

    def update(self, params: Arrays, grads: Arrays, learning_rate: float, n_threads: int = 1) -> None:
        """Makes a step: changes the parameters in place."""
        self.n_updates += 1
        corrected1 = 1 - self.beta1**self.n_updates
        corrected2 = 1 - self.beta2**self.n_updates

        def step(p: Array, g: Array, m: Array, v: Array, decay: float) -> None:
            m *= self.beta1
            m += (1 - self.beta1) * g
            v *= self.beta2
            v += (1 - self.beta2) * (g * g)
            p *= 1 - learning_rate * decay
            p -= (learning_rate / corrected1) * m / (np.sqrt(v) / math.sqrt(corrected2) + self.eps)

        named, derivatives = arrays(params), arrays(grads)
        wanted = [name for name in self.m if is_wanted(derivatives[name])]
        matrices = [name for name in wanted if named[name].ndim > 1]
        vectors = [name for name in wanted if named[name].ndim == 1]
        for names, decay in (matrices, self.weight_decay), (vectors, 0.0):
            together = [(named[name], derivatives[name], self.m[name], self.v[name]) for name in names]
            for_each_part(partial(step, decay=decay), together, n_threads)


def learning_rate(step: int, steps: int, highest: float, lowest: float, warmup: int) -> float:
    """The learning rate of a step, 0 to steps - 1: it rises in a straight line, then falls like half a cosine wave.

    At first, m and v of AdamW know little, so the steps have to be small. At the end, small steps let the noise of
    single batches average out.

    Source: Loshchilov and Hutter 2017, "SGDR"; with a warm-up, Radford et al. 2018, section 4.1.

    >>> [round(learning_rate(step, steps=8, highest=1.0, lowest=0.0, warmup=2), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return lowest + 0.5 * (highest - lowest) * (1 + math.cos(math.pi * progress))
