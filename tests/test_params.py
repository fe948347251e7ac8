"""The parameter tree: names and shapes against transformers' own, and the random initialisation."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config

import numpy_gpt2
from numpy_gpt2.params import Array, HParams, build, count_params, init_params, named_arrays, shapes
from numpy_gpt2.weights.folder import hugging_face_name

# The hyperparameters of the released models, from their hparams.json, and the number of their parameters.
RELEASED = [
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=6), 81_912_576),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12), 124_439_808),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1024, n_head=16, n_layer=24), 354_823_168),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1280, n_head=20, n_layer=36), 774_030_080),
    (HParams(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48), 1_557_611_200),
]


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_names_and_shapes_are_those_of_transformers(hparams: HParams) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs_by_name = transformers.GPT2Model(hugging_face_config(hparams)).named_parameters()
    theirs = {name: tuple(parameter.shape) for name, parameter in theirs_by_name}
    ours = {hugging_face_name(name): array.shape for name, array in named_arrays(init_params(hparams))}
    assert ours == theirs


@pytest.mark.parametrize(("hparams", "parameters"), RELEASED, ids=str)
def test_parameter_counts_of_released_models(hparams: HParams, parameters: int) -> None:
    zero = np.float32(0)
    params = build(hparams, lambda name, shape: np.broadcast_to(zero, shape))  # takes no memory
    assert count_params(hparams) == sum(array.size for _, array in named_arrays(params)) == parameters


@pytest.mark.parametrize("hparams", SHAPES, ids=str)
def test_names_shapes_and_arrays_belong_together(hparams: HParams) -> None:
    """`shapes` and `named_arrays` give the same names as `build`, in the same order."""
    built: list[tuple[str, tuple[int, ...]]] = []

    def make(name: str, shape: tuple[int, ...]) -> Array:
        built.append((name, shape))
        return np.zeros(shape)

    params = build(hparams, make)
    assert [*shapes(hparams).items()] == built
    assert sorted((name, array.shape) for name, array in named_arrays(params)) == sorted(built)


def test_initialisation_is_that_of_the_paper() -> None:
    params = init_params(HParams(n_vocab=1000, n_ctx=500, n_embd=64, n_head=2, n_layer=8))
    for name, array in named_arrays(params):
        assert array.dtype == np.float32
        if name.endswith("/g"):
            assert (array == 1).all()
        elif name.endswith("/b"):
            assert (array == 0).all()
        else:
            expected = 0.01 if name == "wpe" else 0.02 / 4 if name.endswith("c_proj/w") else 0.02  # 4 = sqrt(2 * 8)
            assert array.std() == pytest.approx(expected, rel=0.05)
            assert abs(array.mean()) < expected / 10


def test_parameters_depend_on_the_seed_alone() -> None:
    first, again, other = (numpy_gpt2.init(SHAPES[0], seed=seed).logits([1, 2]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
