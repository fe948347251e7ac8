"""The parameter tree: names and shapes against transformers' own, and the random initialisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, hugging_face_config

import numpy_gpt2
from numpy_gpt2.checkpoints import hugging_face_name
from numpy_gpt2.params import HParams, build, check_hparams, count_params, init_params, named_arrays

# the sizes of the released models (OpenAI's hparams.json), and how many parameters they have
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
    no_memory = np.float32(0)
    params = build(hparams, lambda name, shape: np.broadcast_to(no_memory, shape))
    assert count_params(params) == parameters


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


def test_a_seed_gives_the_same_parameters_again_and_another_seed_others() -> None:
    first, again, other = (numpy_gpt2.init(SHAPES[0], seed=seed).logits([1, 2]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "bfloat16", "nonsense", None, 3])
def test_types_that_are_not_float32_or_float64_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be float32 or float64, not"):
        numpy_gpt2.init(SHAPES[0], dtype=dtype)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, not"):
        numpy_gpt2.load("tiny", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", float, np.float64, np.dtype("float64")])
def test_a_type_may_be_given_in_any_way(dtype: Any) -> None:
    assert numpy_gpt2.init(SHAPES[0], dtype=dtype).params.wpe.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"n_layer": 0}, "n_layer must be a positive whole number, not 0"),
        ({"n_vocab": -5}, "n_vocab must be a positive whole number, not -5"),
        ({"n_embd": 8.0}, "n_embd must be a positive whole number, not 8.0"),
        ({"n_head": True}, "n_head must be a positive whole number, not True"),
        ({"n_ctx": "12"}, "n_ctx must be a positive whole number, not '12'"),
        ({"n_head": 3}, "n_embd must be a multiple of n_head, but 8 is not a multiple of 3"),
    ],
    ids=str,
)
def test_hyper_parameters_of_no_model_are_refused(change: dict[str, int], complaint: str) -> None:
    hparams = HParams(n_vocab=10, n_ctx=4, n_embd=8, n_head=2, n_layer=1)._replace(**change)
    with pytest.raises(ValueError, match=complaint):
        check_hparams(hparams)
    with pytest.raises(ValueError, match=complaint):
        numpy_gpt2.init(hparams)
