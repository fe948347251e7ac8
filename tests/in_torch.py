"""Training in PyTorch: the loss of a model of transformers, its derivatives, and dropout with given masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from numpy_gpt2.evaluation.scoring import IGNORED
from numpy_gpt2.params import Array, Params, named_arrays
from numpy_gpt2.weights.folder import hugging_face_name


def training_loss(peer: Any, ids: Array, targets: Array) -> Any:
    """The cross-entropy of a batch, in the precision of the model; transformers itself computes it in float32."""
    torch = pytest.importorskip("torch")
    logits = peer(torch.tensor(ids)).logits
    of_each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return of_each / int((targets != IGNORED).sum())


def loss_and_gradients(peer: Any, ids: Array, targets: Array) -> tuple[float, dict[str, Array]]:
    """The loss, and its derivatives by the names that the parameters have here."""
    peer.zero_grad()
    loss = training_loss(peer, ids, targets)
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy().copy() for name, parameter in named_parameters(peer)}


def named_parameters(peer: Any) -> Iterable[tuple[str, Any]]:
    """The parameters of a model of transformers by the names that they have here."""
    theirs = dict(peer.named_parameters())
    names = ["wte", "wpe", "ln_f/g", "ln_f/b"]
    parts = [f"{part}/{x}" for part in ("ln_1", "ln_2") for x in "gb"]
    parts += [f"{part}/{x}" for part in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj") for x in "wb"]
    names += [f"h{i}/{part}" for i in range(len(peer.transformer.h)) for part in parts]
    assert len(names) == len(theirs)
    return [(name, theirs[f"transformer.{hugging_face_name(name)}"]) for name in names]


@contextlib.contextmanager
def dropout_by(factors: Iterable[Array]) -> Iterator[None]:
    """Within this context, each dropout of transformers multiplies by the next of these factors, all of which it needs.

    A pass drops after the embeddings; and in each block the weights, after attention, and after the MLP.
    """
    torch = pytest.importorskip("torch")
    left = list(factors)

    def dropout(x: Any, *args: Any, **kwargs: Any) -> Any:
        factor = torch.tensor(left.pop(0))
        assert x.shape == factor.shape
        return x * factor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", dropout)
        yield
    assert not left


def assert_near(ours: Array, theirs: Array, limit: float = 1e-9, name: str = "") -> None:
    """Of the same shape and dtype, and equal up to this part of the norm."""
    assert ours.shape == theirs.shape, name
    assert ours.dtype == theirs.dtype, name
    distance = np.linalg.norm((ours - theirs).ravel())
    assert distance <= limit * np.linalg.norm(theirs.ravel()), name  # a NaN is never within the limit


def assert_gradients_near(ours: Params, theirs: dict[str, Array], limit: float = 1e-9) -> None:
    """Every derivative of a model."""
    named = dict(named_arrays(ours))
    assert named.keys() == theirs.keys()
    for name, array in named.items():
        assert_near(array, theirs[name], limit, name)
