"""Matrix products: `x @ w`, in the order that OpenBLAS, which NumPy comes with, computes fastest.

`product` is used wherever the model multiplies by a matrix of parameters. Each of its forms equals `x @ w` up
to rounding. The figures are those of the 124M model on two cores of a server.
"""

from __future__ import annotations

import numpy as np

from ..params import Array

# With at most this many rows, products of single rows are faster than one product: before it multiplies two matrices,
# OpenBLAS copies `w` into another order, which takes three times as long as reading it.
MAX_ROWS_ONE_BY_ONE = 5

# With 2 to this many rows, the product with a transposed matrix is faster as (w^T x^T)^T.
MAX_ROWS_TRANSPOSED = 63

# How many rows of w^T each product takes in that case: all at once takes up to twice as long.
ROWS_AT_ONCE = 1024


def product(x: Array, w: Array) -> Array:
    """The matrix product x w. The plain form is `x @ w`.

    NumPy would multiply the texts of a batch one by one, and so read `w` once for each. Here the rows of all
    texts are multiplied together.

    Shapes: `[..., n_in]` and `[n_in, n_out]` to `[..., n_out]`.

    >>> product(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[10.0], [1.0]]))
    array([[[12.]],
    <BLANKLINE>
           [[34.]]])
    """
    rows = x.reshape(-1, x.shape[-1])
    if w.flags.c_contiguous:
        y = row_by_row(rows, w) if len(rows) <= MAX_ROWS_ONE_BY_ONE else rows @ w
    else:  # transposed, as the token embeddings are in the output head
        y = part_by_part(rows, w) if 1 < len(rows) <= MAX_ROWS_TRANSPOSED else rows @ w
    return y.reshape(*x.shape[:-1], w.shape[-1])


def row_by_row(rows: Array, w: Array) -> Array:
    """The same as `rows @ w`, as one product of a vector and a matrix for each row.

    Shapes: `[n_rows, n_in]` and `[n_in, n_out]` to `[n_rows, n_out]`.
    """
    return (rows[:, None] @ w)[:, 0]  # NumPy multiplies a stack of one-row matrices one after another


def part_by_part(rows: Array, w: Array) -> Array:
    """The same as `rows @ w` for a transposed `w`: transposed once more, and ROWS_AT_ONCE columns of `w` at a time.

    Shapes: `[n_rows, n_in]` and `[n_in, n_out]` to `[n_rows, n_out]`.
    """
    y = np.empty((len(rows), w.shape[1]), np.result_type(rows, w), like=rows)
    for i in range(0, w.shape[1], ROWS_AT_ONCE):
        y[:, i : i + ROWS_AT_ONCE] = (w.T[i : i + ROWS_AT_ONCE] @ rows.T).T
    return y
