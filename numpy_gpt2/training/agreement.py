"""Whether training and the model agree: a change of a layer must not be learned with the derivatives of the old one.

A reader may edit `layers.py`, or replace a function of it from outside. The derivatives in `gradients.py` are those of
the functions as they were, and `forward.py` puts the parts of a block together a second time. So before anything is
learned, both are compared with what the model computes now, on a small random model.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from .. import layers, model
from ..decoding import prefill
from ..params import HParams, Params, build, named_arrays
from . import gradients
from .forward import NO_DROPOUT, Dropout

# The functions that can be replaced together with their backward functions, and those whose steps training computes one
# by one.
REPLACEABLE = [
    *((layers, name) for name in ("softmax", "gelu", "layer_norm", "linear")),
    *((model, name) for name in ("embed", "output_head")),
]
ONE_BY_ONE = [
    *((layers, name) for name in ("log_softmax", "attention", "split_heads", "merge_heads")),
    *((layers, name) for name in ("multi_head_attention", "mlp", "block")),
    *((model, name) for name in ("transformer", "logits")),
]

# The small model. Its numbers are of the size at which every part matters.
SMALL = HParams(n_vocab=7, n_ctx=5, n_embd=6, n_head=2, n_layer=2)
IDS, TARGETS = np.array([[1, 5, 1, 3]]), np.array([[5, 1, 3, 6]])
STEP = 1e-5  # by which the parameters are moved for a difference quotient
TOLERANCE = 1e-6

_compared: set[tuple[object, ...]] = set()  # the code of the functions, each time that it was compared


def check() -> None:
    """Checks that what is learned is the model that is computed.

    Raises:
        ValueError: a function of `layers` or `model` was replaced, and its backward function was not; one was replaced
            whose steps training computes one by one; one was edited, and its backward function was not; or a trace or a
            patch is active, which would see only a part.
    """
    for module, name in [*REPLACEABLE, *ONE_BY_ONE]:
        if is_original(module, name):
            continue
        replaced = f"{module.__name__.rpartition('.')[2]}.{name} was replaced"
        if (module, name) in ONE_BY_ONE:
            raise ValueError(
                f"{replaced}, but training computes its steps one by one: change them in `training/forward.py`, and "
                "their derivatives in `training/gradients.py`"
            )
        if is_original(gradients, f"{name}_backward"):
            raise ValueError(f"{replaced}, but its derivatives were not: replace gradients.{name}_backward, too")
    if prefill.reads_whole():
        raise ValueError("a trace or a patch is active, and would see only a part of training: leave it first")
    functions = [getattr(module, name) for module, name in [*REPLACEABLE, *ONE_BY_ONE]]
    functions += [getattr(gradients, f"{name}_backward") for _, name in REPLACEABLE]
    codes = tuple(getattr(function, "__code__", function) for function in functions)
    if codes not in _compared:
        _compared.add(codes)  # at once, since `gradients.gradients`, which is compared, checks as well
        try:
            compare()
        except Exception:
            _compared.discard(codes)
            raise


def is_original(module: ModuleType, name: str) -> bool:
    """Whether a function of a module is the one that is written there."""
    code = getattr(getattr(module, name), "__code__", None)
    return code is not None and (code.co_filename, code.co_name) == (module.__file__, name)


def compare() -> None:
    """Compares the forward pass of training, and the gradients, with what the model computes.

    Raises:
        ValueError: they differ.
    """
    rng = np.random.default_rng(0)
    params, direction = (
        build(SMALL, lambda name, shape: rng.normal(name.endswith("/g"), 0.3, shape)) for _ in range(2)
    )
    loss, _ = gradients.gradients(IDS, TARGETS, params, SMALL.n_head)
    of_model = gradients.cross_entropy(model.logits(IDS, params, SMALL.n_head), TARGETS, TARGETS.size)
    if not abs(loss - of_model) < TOLERANCE:
        raise ValueError(
            "`layers` or `model` computes something else than training does: change `training/forward.py`, which puts "
            "the parts of a block together, and `training/gradients.py` in the same way"
        )
    for drop in (NO_DROPOUT, Dropout(0.2)):
        _, grads = gradients.gradients(IDS, TARGETS, params, SMALL.n_head, drop=drop)
        pairs = zip(named_arrays(direction), named_arrays(grads), strict=True)
        derived = sum(np.vdot(d, g) for (_, d), (_, g) in pairs)
        after, before = (
            gradients.gradients(IDS, TARGETS, moved(params, direction, by), SMALL.n_head, drop=drop)[0]
            for by in (STEP, -STEP)
        )
        if not abs((after - before) / (2 * STEP) - derived) < TOLERANCE:
            raise ValueError(
                "the derivatives in `training/gradients.py` are not those of what `layers` and `model` compute: a "
                "function there was edited, and its backward function was not"
            )


def moved(params: Params, direction: Params, by: float) -> Params:
    """Parameters, moved by so much in a direction."""
    directions = dict(named_arrays(direction))
    arrays = {name: array + by * directions[name] for name, array in named_arrays(params)}
    return build(SMALL, lambda name, shape: arrays[name])
