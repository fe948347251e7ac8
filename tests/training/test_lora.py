"""Low-rank updates, against PyTorch's derivatives of w + a @ b."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import DTYPES, SHAPES, in_pytorch, random_ids, random_model
from in_torch import assert_near, training_loss

from numpy_gpt2.params import Array, Params, named_arrays
from numpy_gpt2.training import loop, lora
from numpy_gpt2.training.loop import Options, Training
from numpy_gpt2.training.parallel import batch_gradients
from numpy_gpt2.weights.folder import hugging_face_name

HPARAMS = SHAPES[1]
IDS = random_ids(HPARAMS, 1, 300)[0]
MATRICES = ("attn/c_attn/w", "attn/c_proj/w", "mlp/c_fc/w", "mlp/c_proj/w")


def started(dtype: str = "float64", n_threads: int = 1, **options: Any) -> Training:
    values = {"lora_rank": 3, "batch_size": 2, "window": 9, "steps": 20, **options}
    return Training(random_model(HPARAMS, dtype), IDS, Options(**values), n_threads)


def adapters_of(training: Training) -> lora.Adapters:
    assert training.adapters
    return training.adapters


def with_random_b(training: Training) -> Training:
    """As if it had learned for a while."""
    rng = np.random.default_rng(5)
    adapters = adapters_of(training)
    for name, array in adapters.arrays.items():
        if name.endswith("/b"):
            array[...] = rng.normal(0, 0.1, array.shape)
    adapters.merge_into(dict(named_arrays(training.model.params)))
    return training


def copies(training: Training) -> dict[str, Array]:
    return {name: array.copy() for name, array in named_arrays(training.model.params)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_at_first_they_change_nothing(dtype: str) -> None:
    training = started(dtype)
    adapters_of(training).merge_into(dict(named_arrays(training.model.params)))
    for name, array in named_arrays(random_model(HPARAMS, dtype).params):
        np.testing.assert_array_equal(dict(named_arrays(training.model.params))[name], array)
    assert {array.dtype for array in adapters_of(training).arrays.values()} == {np.dtype(dtype)}


def test_the_random_half_is_as_large_as_it_says_and_follows_from_the_seed() -> None:
    w = {"some": np.zeros((400, 300)), "other": np.zeros((400, 300))}
    arrays = lora.adapters(w, rank=50, seed=1).arrays
    assert {name: array.shape for name, array in arrays.items()} == {
        **{f"{name}/a": (400, 50) for name in w},
        **{f"{name}/b": (50, 300) for name in w},
    }
    a = arrays["some/a"]
    assert np.std(a) == pytest.approx(1 / 20, rel=0.03)
    assert np.mean(a) == pytest.approx(0, abs=0.002)
    assert not np.array_equal(a, arrays["other/a"])
    np.testing.assert_array_equal(lora.adapters(w, 50, seed=1).arrays["some/a"], a)
    assert not np.array_equal(lora.adapters(w, 50, seed=2).arrays["some/a"], a)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("train_last", [0, 1, 2])
def test_the_derivatives_are_those_of_pytorch(train_last: int, n_threads: int) -> None:
    torch = pytest.importorskip("torch")
    training = with_random_b(started(train_last=train_last, n_threads=n_threads))
    adapters = adapters_of(training)
    learned = {name: torch.tensor(array, requires_grad=True) for name, array in adapters.arrays.items()}
    changed = {
        f"transformer.{hugging_face_name(name)}": torch.tensor(w) + learned[f"{name}/a"] @ learned[f"{name}/b"]
        for name, w in adapters.base.items()
    }
    peer = in_pytorch(random_model(HPARAMS))
    batch = training.random_batch(np.random.default_rng((training.options.seed, training.step)))
    loss = training_loss(lambda ids: torch.func.functional_call(peer, changed, (ids,)), *batch)
    loss.backward()
    ours, grads, _ = training.gradients()
    assert ours == pytest.approx(loss.item(), rel=1e-12)
    assert grads.keys() == learned.keys()
    for name, tensor in learned.items():
        assert_near(grads[name], tensor.grad.numpy(), 1e-9, name)


@pytest.mark.parametrize("train_last", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_model_is_always_the_base_and_the_product_and_nothing_else_is_learned(train_last: int, dtype: str) -> None:
    training = started(dtype, n_threads=2, train_last=train_last, learning_rate=0.1)
    before = copies(training)
    blocks = range(HPARAMS.n_layer - train_last if train_last else 0, HPARAMS.n_layer)
    adapted = {f"h{i}/{part}" for i in blocks for part in MATRICES}
    assert training.optimizer.m.keys() == {f"{name}/{half}" for name in adapted for half in "ab"}
    arrays_before = {name: array.copy() for name, array in adapters_of(training).arrays.items()}
    for _ in range(4):
        training.next_step()
    arrays = adapters_of(training).arrays
    assert all((arrays[name] != array).any() for name, array in arrays_before.items())
    for name, array in named_arrays(training.model.params):
        if name in adapted:
            np.testing.assert_array_equal(array, before[name] + arrays[f"{name}/a"] @ arrays[f"{name}/b"], name)
            assert (array != before[name]).any()
            assert np.linalg.matrix_rank((array - before[name]).astype(np.float64), tol=1e-4) == 3
        else:
            np.testing.assert_array_equal(array, before[name], name)


def test_they_learn() -> None:
    text = np.tile(np.arange(HPARAMS.n_vocab), 30)
    options = Options(lora_rank=4, batch_size=4, window=12, steps=80, learning_rate=0.05)
    training = Training(random_model(HPARAMS), text, options, n_threads=1)
    losses = [training.next_step().loss for _ in range(80)]
    assert losses[0] > 2
    assert losses[-1] < 1


@pytest.mark.parametrize("train_last", [0, 1])
def test_no_memory_is_taken_for_derivatives_of_the_embeddings(train_last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = []

    def recorded(*args: Any, **kwargs: Any) -> tuple[float, Params]:
        loss, tree = batch_gradients(*args, **kwargs)
        trees.append(tree)
        return loss, tree

    monkeypatch.setattr(loop, "batch_gradients", recorded)
    started(train_last=train_last).next_step()
    (tree,) = trees
    assert {array.strides for array in (tree.wte, tree.wpe)} == {(0, 0)}  # one number stands for all
