"""What is refused, and with which words: hyperparameters, dtypes, token ids, token types, whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHAPES, random_model

import numpy_gpt2
from numpy_gpt2.cache import Past
from numpy_gpt2.checks import check_fits, check_hparams, check_ids, check_indices, check_whole_number
from numpy_gpt2.params import HParams


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
def test_impossible_hyperparameters_are_refused(change: dict[str, int], complaint: str) -> None:
    hparams = HParams(n_vocab=10, n_ctx=4, n_embd=8, n_head=2, n_layer=1)._replace(**change)
    with pytest.raises(ValueError, match=complaint):
        check_hparams(hparams)
    with pytest.raises(ValueError, match=complaint):
        numpy_gpt2.init(hparams)


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "bfloat16", "nonsense", None, 3])
def test_dtypes_other_than_float32_and_float64_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be float32 or float64, not"):
        numpy_gpt2.init(SHAPES[0], dtype=dtype)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, not"):
        numpy_gpt2.load("tiny", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", float, np.float64, np.dtype("float64")])
def test_a_dtype_may_be_given_in_any_way(dtype: Any) -> None:
    assert numpy_gpt2.init(SHAPES[0], dtype=dtype).params.wpe.dtype == np.float64


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ([], "no token ids"),
        ([[]], "no token ids"),
        ([300], "token id 300 is outside the vocabulary, which has the ids 0 to 299"),
        ([5, -1], "token id -1 is outside"),
        ([1.0], "whole numbers"),
        (["a"], "this is text, not token ids: tokenizer.encode makes ids of it"),
        ("a", "has no vocabulary"),
        ([True], "whole numbers"),
        ([2**70], "whole numbers"),
        (3, "whole numbers"),
        ([[[1]]], "whole numbers"),
        ([[1, 2], [3]], "same length"),
        ([0] * 8, "8 tokens are too many for this model, whose context holds 7"),
    ],
    ids=str,
)
def test_ids_that_the_model_cannot_read_are_refused(ids: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        random_model(SHAPES[0]).logits(ids)


@pytest.mark.parametrize("ids", [[1, 2], (1, 2), np.array([1, 2], np.uint16), [[1, 2]]], ids=repr)
def test_ids_get_a_batch_axis(ids: Any) -> None:
    assert check_ids(ids, SHAPES[0]).tolist() == [[1, 2]]


def test_ids_that_do_not_fit_the_past_are_refused() -> None:
    gpt2 = random_model(SHAPES[0])
    past = gpt2.new_past()
    gpt2.logits([1, 2, 3, 4], past)
    with pytest.raises(ValueError, match="8 tokens .4 of them read before. are too many"):
        gpt2.logits([5, 6, 7, 8], past)
    with pytest.raises(ValueError, match="a batch of 1.* a batch of 2"):
        gpt2.logits([[5], [6]], past)
    assert past.lengths.tolist() == [4]
    small = Past(gpt2.params, 3, capacity=3)
    with pytest.raises(ValueError, match="4 tokens are too many for this past, which has room for 3"):
        gpt2.logits([1, 2, 3, 4], small)


def test_the_longest_text_of_a_past_decides_how_many_tokens_fit() -> None:
    past = random_model(SHAPES[0]).new_past(2)
    past.lengths[:] = [2, 5]
    check_fits(np.zeros((2, 2), int), SHAPES[0], past)
    with pytest.raises(ValueError, match="8 tokens .5 of them read before. are too many for this model"):
        check_fits(np.zeros((2, 3), int), SHAPES[0], past)


@pytest.mark.parametrize(
    ("types", "complaint"),
    [
        ([1, 2], "token_type_ids must be whole numbers in the shape .3., not int64 in the shape .2."),
        ([1, 2, 300], "token_type_ids holds 300; it must hold numbers from 0 to 299$"),
        ([1, 2, -100], "token_type_ids holds -100"),
    ],
    ids=str,
)
def test_token_types_that_do_not_fit_are_refused(types: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        random_model(SHAPES[0]).logits([1, 2, 3], token_type_ids=types)


def test_an_ignored_index_is_accepted_where_there_is_one() -> None:
    assert check_indices("labels", [0, -100, 4], (3,), 5, ignored=-100).tolist() == [0, -100, 4]
    with pytest.raises(ValueError, match="^labels holds -1; it must hold numbers from 0 to 4, or -100 for one that"):
        check_indices("labels", [0, -100, -1], (3,), 5, ignored=-100)


@pytest.mark.parametrize("value", [0, 8, 2.0, True, "3", None])
def test_whole_numbers_out_of_range_are_refused(value: Any) -> None:
    check_whole_number("n", 1, at_least=1, at_most=7)
    check_whole_number("n", np.array([7])[0], at_least=1, at_most=7)
    with pytest.raises(ValueError, match="n must be a whole number, 1 to 7, not"):
        check_whole_number("n", value, at_least=1, at_most=7)


def test_a_whole_number_of_numpy_becomes_one_of_python() -> None:
    assert type(check_whole_number("n", np.uint8(200))) is int  # type: ignore[arg-type]
