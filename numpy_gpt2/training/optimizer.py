"""From gradients to a step: clipping, AdamW and Muon, and a learning rate that rises and falls.

Parameters and gradients are given as a tree or as arrays by name, and changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from ..machine.workers import for_each_part, run_in_threads
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
        named, derivatives = arrays(params), arrays(grads)
        wanted = [name for name in self.v if is_wanted(derivatives[name])]
        matrices = [name for name in wanted if named[name].ndim > 1]
        vectors = [name for name in wanted if named[name].ndim == 1]
        for names, decay in (matrices, self.weight_decay), (vectors, 0.0):
            together = [(named[name], derivatives[name], self.m[name], self.v[name]) for name in names]
            for_each_part(partial(self.step, learning_rate=learning_rate, decay=decay), together, n_threads)

    def step(self, p: Array, g: Array, m: Array, v: Array, learning_rate: float, decay: float) -> None:
        """Updates some parameters and their means, given their derivatives. Shapes: any, the same for all four."""
        t = self.n_updates
        m *= self.beta1
        m += (1 - self.beta1) * g
        v *= self.beta2
        v += (1 - self.beta2) * (g * g)
        p *= 1 - learning_rate * decay
        rate = learning_rate / (1 - self.beta1**t)
        p -= rate * m / (np.sqrt(v) / math.sqrt(1 - self.beta2**t) + self.eps)


class Muon(AdamW):
    """Muon for the matrices in the blocks, and AdamW for everything else.

    For each matrix w with the derivatives g:

    m = momentum m + (1 - momentum) g                    the mean of the last derivatives
    u = orthogonalized(momentum m + (1 - momentum) g)    the newest ones count once more (Nesterov's momentum)
    w = w - rate * decay * w
    w = w - rate * 0.2 sqrt(max(n_in, n_out)) u

    The derivatives of a matrix are usually large in a few directions, and small in all others, in which something is to
    be learned as well. `orthogonalized` makes the step equally long in all directions. A new model then needs fewer
    steps. The last factor makes the numbers of the step about as large as those of AdamW, so that both parts of the
    model can have the same learning rate.

    `c_attn` holds three matrices side by side, one for queries, keys and values each. They are orthogonalized one by
    one; the factors of a low-rank update are single matrices. Embeddings are not matrices in this sense: their rows
    belong to single tokens and positions.

    The time for this does not depend on the batch. It grows with the third power of the width.

    Attributes:
        m, n_updates: as for `AdamW`.
        v: of everything that is left to AdamW.
        matrices: the names of the others.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; for the last factor and the
    decay, Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.
    """

    def __init__(self, params: Arrays, momentum: float = 0.95, **options: float) -> None:
        """Begins with m = v = 0, for these parameters; options are those of `AdamW`."""
        super().__init__(params, **options)
        self.momentum = momentum
        self.matrices = [name for name, m in self.m.items() if name.startswith("h") and m.ndim == 2]
        for name in self.matrices:
            del self.v[name]

    def update(self, params: Arrays, grads: Arrays, learning_rate: float, n_threads: int = 1) -> None:
        """Makes a step: changes the parameters in place."""
        super().update(params, grads, learning_rate, n_threads)
        named, derivatives = arrays(params), arrays(grads)

        matrices = [  # the largest first, so that the threads get about equally much
            together
            for name in self.matrices
            if is_wanted(derivatives[name])
            for together in zip(*(split_matrix(name, a[name]) for a in (named, derivatives, self.m)), strict=True)
        ]

        def update_some(some: Sequence[tuple[Array, Array, Array]]) -> None:
            for w, g, m in some:
                self.step_of_matrix(w, g, m, learning_rate)

        matrices.sort(key=lambda together: -together[0].size)
        n_threads = max(1, min(n_threads, len(matrices)))
        run_in_threads([partial(update_some, matrices[k::n_threads]) for k in range(n_threads)])

    def step_of_matrix(self, w: Array, g: Array, m: Array, learning_rate: float) -> None:
        """Updates a matrix and its mean, given its derivatives. Shapes: `[n_in, n_out]` all three."""
        m *= self.momentum
        m += (1 - self.momentum) * g
        u = orthogonalized(self.momentum * m + (1 - self.momentum) * g)
        w *= 1 - learning_rate * self.weight_decay
        w -= learning_rate * 0.2 * math.sqrt(max(w.shape)) * u


def split_matrix(name: str, array: Array) -> list[Array]:
    """The matrices that a parameter consists of, as views: three of `c_attn`, one of any other.

    Shapes: `[n_in, n * n_out]` to n times `[n_in, n_out]`.
    """
    return np.split(array, 3 if name.endswith("c_attn/w") else 1, axis=1)


def orthogonalized(x: Array, n_iterations: int = 5) -> Array:
    """A matrix with the directions of x, all of them about equally long.

    By its singular value decomposition, x = U S V^T, where U and V are orthogonal, and the diagonal matrix S says how
    long each direction is. U V^T would be the same with all lengths 1. To find it without a decomposition, the
    iteration of Newton and Schulz begins with x / |x|, whose lengths s are at most 1, and repeats

    x = a x + (b y + c y y) x,  y = x x^T

    This changes each s to a s + b s^3 + c s^5 and leaves U and V as they are. With these a, b and c, an s of at least
    0.002 grows to about 1 in five iterations, though not exactly: to between 0.68 and 1.21.

    Shapes: `[n_in, n_out]` to `[n_in, n_out]`.
    Source: Jordan et al. 2024.

    >>> orthogonalized(np.array([[3.0, 0.0, 0.0], [0.0, 0.0, -0.5]])).round(1)
    array([[ 0.7,  0. ,  0. ],
           [ 0. ,  0. , -1. ]])
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    n_in, n_out = x.shape
    z = x if n_in <= n_out else x.T  # so that y is the smaller of the two products
    z = z / (math.sqrt(float(np.vdot(z, z))) + 1e-7)
    for _ in range(n_iterations):
        y = z @ z.T
        z = a * z + (b * y + c * (y @ y)) @ z
    return z if n_in <= n_out else z.T


OPTIMIZERS: Mapping[str, type[AdamW]] = {"adamw": AdamW, "muon": Muon}


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
