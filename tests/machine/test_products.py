"""Matrix products in each of their forms against NumPy's einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import DTYPES

from numpy_gpt2.machine import products
from numpy_gpt2.machine.products import few_rows, pad, product, row_by_row
from numpy_gpt2.params import Array

ROWS = [1, 2, 6, 7, 9, 16, 63, 64]
N_IN, N_OUT = 12, 2 * products.COLUMNS_AT_ONCE + 52  # the last part of the columns is not a full one


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
    @pytest.mark.parametrize("form", [product, row_by_row, few_rows])
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

    @pytest.mark.parametrize("n_out", [1, *(products.COLUMNS_AT_ONCE + n for n in (-1, 0, 1))])
    def test_any_number_of_columns(self, n_out: int, transposed: bool, dtype: str) -> None:
        whole = matrix(dtype, transposed)
        w = whole[:, :n_out] if transposed else whole[:, :n_out].copy()
        for n_rows in (1, 2, 7):
            x = vectors(dtype, n_rows, N_IN)
            for form in (product, row_by_row, few_rows):
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
    form(x, w.view(Recorded))
    return [*Recorded.products]


def plain(rows: Array, w: Array) -> Array:
    return rows @ w


@pytest.mark.parametrize(
    ("transposed", "n_rows", "n_multiplied", "form"),
    [
        (False, 1, 1, plain),
        (False, 2, 2, row_by_row),
        (False, 6, 6, row_by_row),
        (False, 7, 8, plain),
        (False, 8, 8, plain),
        (False, 9, 9, plain),
        (False, 10, 16, plain),
        (False, 15, 16, plain),
        (False, 62, 64, plain),
        (False, 70, 70, plain),
        (True, 1, 1, plain),
        (True, 2, 2, row_by_row),
        (True, 6, 6, row_by_row),
        (True, 7, 8, few_rows),
        (True, 9, 9, few_rows),
        (True, 10, 16, few_rows),
        (True, 63, 64, few_rows),
        (True, 64, 64, plain),
    ],
)
def test_the_form_depends_on_the_rows_of_all_texts_together(
    transposed: bool, n_rows: int, n_multiplied: int, form: Callable[[Array, Array], Array]
) -> None:
    x, w = vectors("float32", n_rows, N_IN), matrix("float32", transposed)
    expected = products_of(form, vectors("float32", n_multiplied, N_IN), w)
    assert products_of(product, x, w) == products_of(product, x[:, None], w) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("part", [1, N_OUT, 5 * N_OUT, N_IN * N_OUT // 2, N_IN * N_OUT, 10**9])
def test_row_by_row_in_parts_of_any_size(
    part: int, transposed: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PART", part)
    x, w = vectors(dtype, 3, N_IN), matrix(dtype, transposed)
    assert_product(row_by_row(x, w), x, w)
    sizes = [w_shape[0] * w_shape[1] for _, w_shape in products_of(row_by_row, x, w)]
    assert sum(sizes) == w.size
    assert all(size >= min(part, w.size) for size in sizes[:-1])


def test_rows_of_zeros_are_added_as_they_are_needed() -> None:
    for n_rows in range(7, 64):
        x = vectors("float32", n_rows, N_IN)
        padded = pad(x)
        np.testing.assert_array_equal(padded[:n_rows], x)
        assert padded.dtype == x.dtype
        assert not padded[n_rows:].any()
        assert len(padded) == (n_rows if n_rows % 8 == 1 else -(-n_rows // 8) * 8)
