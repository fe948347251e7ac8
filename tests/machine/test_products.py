"""Matrix products in each of their forms against NumPy's einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES

from numpy_gpt2.machine import products
from numpy_gpt2.machine.products import part_by_part, product, row_by_row
from numpy_gpt2.params import Array

ROWS = [1, 2, 5, 6, 63, 64]
N_IN, N_OUT = 12, 2 * products.ROWS_AT_ONCE + 52  # the last part of the columns is not a full one


def matrix(dtype: str, transposed: bool) -> Array:
    """A weight, `[N_IN, N_OUT]`: contiguous, or the transpose of a contiguous array."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(N_OUT, N_IN)).T if transposed else rng.normal(size=(N_IN, N_OUT))
    w = w.astype(dtype)
    assert w.flags.c_contiguous != transposed
    return w


def vectors(dtype: str, *shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def assert_product(y: Array, x: Array, w: Array) -> None:
    """y equals the product of x and w up to rounding, and has the dtype of x."""
    expected = np.einsum("...i,io->...o", x.astype(np.float64), w.astype(np.float64))
    assert y.shape == expected.shape
    assert y.dtype == x.dtype
    limit = {"float32": 4e-6, "float64": 1e-14}[str(x.dtype)]
    np.testing.assert_allclose(y, expected, rtol=0, atol=limit * np.abs(expected).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
class TestEveryForm:
    @pytest.mark.parametrize("form", [product, row_by_row, part_by_part])
    @pytest.mark.parametrize("n_rows", ROWS)
    def test_any_number_of_rows(
        self, form: Callable[[Array, Array], Array], n_rows: int, transposed: bool, dtype: str
    ) -> None:
        x, w = vectors(dtype, n_rows, N_IN), matrix(dtype, transposed)
        assert_product(form(x, w), x, w)

    @pytest.mark.parametrize(
        "shape", [(), (1,), (6,), (1, 1), (5, 1), (1, 5), (3, 2), (63, 1), (8, 8), (2, 1, 3), (4, 4, 4)], ids=str
    )
    def test_axes_before_the_last_are_kept(self, shape: tuple[int, ...], transposed: bool, dtype: str) -> None:
        x, w = vectors(dtype, *shape, N_IN), matrix(dtype, transposed)
        assert_product(product(x, w), x, w)

    def test_vectors_that_are_not_contiguous(self, transposed: bool, dtype: str) -> None:
        w = matrix(dtype, transposed)
        every_other, swapped = vectors(dtype, 6, 2 * N_IN)[:, ::2], np.swapaxes(vectors(dtype, 3, 4, N_IN), 0, 1)
        for x in (every_other, swapped, every_other[:2]):
            assert not x.flags.c_contiguous
            assert_product(product(x, w), x, w)

    @pytest.mark.parametrize("n_out", [1, products.ROWS_AT_ONCE - 1, products.ROWS_AT_ONCE, products.ROWS_AT_ONCE + 1])
    def test_any_number_of_columns(self, n_out: int, transposed: bool, dtype: str) -> None:
        whole = matrix(dtype, transposed)
        w = whole[:, :n_out] if transposed else whole[:, :n_out].copy()
        for n_rows in (1, 2, 6):
            x = vectors(dtype, n_rows, N_IN)
            for form in (product, row_by_row, part_by_part):
                assert_product(form(x, w), x, w)


class Recorded(np.ndarray):
    """An array that notes the shapes of the matrix products in which it takes part."""

    products: list[tuple[tuple[int, ...], ...]] = []  # noqa: RUF012

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Array, **options: Any) -> Any:
        if ufunc is np.matmul:
            self.products.append(tuple(array.shape for array in inputs))
        return getattr(ufunc, method)(*map(np.asarray, inputs), **options)


def products_of(form: Callable[[Array, Array], Array], x: Array, w: Array) -> list[tuple[tuple[int, ...], ...]]:
    """The shapes of the products that NumPy computes for this form."""
    Recorded.products.clear()
    form(x.view(Recorded), w)
    return [*Recorded.products]


def plain(rows: Array, w: Array) -> Array:
    return rows @ w


@pytest.mark.parametrize(
    ("transposed", "n_rows", "form"),
    [
        (False, 1, row_by_row),
        (False, products.MAX_ROWS_ONE_BY_ONE, row_by_row),
        (False, products.MAX_ROWS_ONE_BY_ONE + 1, plain),
        (False, 100, plain),
        (True, 1, plain),
        (True, 2, part_by_part),
        (True, products.MAX_ROWS_TRANSPOSED, part_by_part),
        (True, products.MAX_ROWS_TRANSPOSED + 1, plain),
    ],
)
def test_the_form_depends_on_the_rows_of_all_texts_together(
    transposed: bool, n_rows: int, form: Callable[[Array, Array], Array]
) -> None:
    x, w = vectors("float32", n_rows, N_IN), matrix("float32", transposed)
    expected = products_of(form, x, w)
    assert products_of(product, x, w) == products_of(product, x[:, None], w) == expected
    assert len({str(products_of(each, x, w)) for each in (row_by_row, part_by_part, plain)}) == 3
