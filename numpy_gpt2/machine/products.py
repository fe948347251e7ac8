"""Matrix products: `x @ w`, in the order that OpenBLAS, which NumPy comes with, computes fastest.

`product` is used wherever the model multiplies by a matrix of parameters. Each of its forms equals `x @ w` up
to rounding; which of them is fastest depends on the number of rows. All products of one pass of the 124M model took, on
two cores of an Intel server with OpenBLAS's kernel for SkylakeX, in milliseconds:

    rows           1    2    3    4    5    6    8   10   12   14   16   24   32
    x @ w         23   65   68   65   73   80   64   83   81   95   75   91   99
    product(x, w) 23   34   40   48   53   60   64   74   70   71   65   84   90

With OpenBLAS's kernel for Zen, too, 2 to 6 rows are fastest one by one, and 14 or 22 rows take longer than 16 or 24.
"""

from __future__ import annotations

import math

import numpy as np

from ..params import Array

# The numbers of rows for which products of single rows are faster than one product: before it multiplies two matrices,
# OpenBLAS copies `w` into another order, which takes three times as long as reading it.
ROW_BY_ROW = range(2, 7)

# How much of `w` the rows are multiplied with before the next part is read: 2 MB of float32, so that all rows but the
# first find it in the processor's cache. A smaller part would be too small for OpenBLAS to use several threads.
PART = 2**19

# The numbers of rows for which it matters how many are left over in blocks of 8, in which OpenBLAS takes them, and for
# which the product with a transposed matrix is faster as (w^T x^T)^T.
FEW = range(7, 64)
BLOCK = 8

# How many columns of `w` each product takes in the second case: all at once takes up to twice as long.
COLUMNS_AT_ONCE = 1024


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
    n_rows = len(rows)
    if n_rows in ROW_BY_ROW:
        y = row_by_row(rows, w)
    elif n_rows in FEW:
        y = few_rows(pad(rows), w)[:n_rows]
    else:
        y = rows @ w
    return y.reshape(*x.shape[:-1], w.shape[-1])


def row_by_row(rows: Array, w: Array) -> Array:
    """The same as `rows @ w`, as products of one vector and one part of the matrix.

    Shapes: `[n_rows, n_in]` and `[n_in, n_out]` to `[n_rows, n_out]`.
    """
    vectors = rows[:, None]  # NumPy multiplies a stack of one-row matrices one after another
    n_in, n_out = w.shape
    n_parts = max(1, w.size // PART)
    if w.flags.c_contiguous:
        n = math.ceil(n_in / n_parts)
        y = vectors[..., :n] @ w[:n]
        for i in range(n, n_in, n):
            y += vectors[..., i : i + n] @ w[i : i + n]
        return y[:, 0]
    n = math.ceil(n_out / n_parts)
    return np.concatenate([vectors @ w[:, i : i + n] for i in range(0, n_out, n)], axis=2)[:, 0]


def pad(rows: Array) -> Array:
    """The same rows, and rows of zeros up to a multiple of BLOCK; but up to six rows more are worth it, not seven.

    Shapes: `[n_rows, n_in]` to `[n_rows + n_missing, n_in]`.
    """
    n_missing = -len(rows) % BLOCK
    if n_missing in (0, BLOCK - 1):
        return rows
    return np.concatenate([rows, np.zeros((n_missing, rows.shape[1]), rows.dtype, like=rows)])


def few_rows(rows: Array, w: Array) -> Array:
    """The same as `rows @ w`; if `w` is transposed, transposed once more, and COLUMNS_AT_ONCE at a time.

    Shapes: `[n_rows, n_in]` and `[n_in, n_out]` to `[n_rows, n_out]`.
    """
    if w.flags.c_contiguous:
        return rows @ w
    y = np.empty((len(rows), w.shape[1]), np.result_type(rows, w), like=rows)
    for i in range(0, w.shape[1], COLUMNS_AT_ONCE):
        y[:, i : i + COLUMNS_AT_ONCE] = (w.T[i : i + COLUMNS_AT_ONCE] @ rows.T).T
    return y


# How many numbers of a sum of products are computed before they are added: 2 MB of float32, which stay in the cache.
SUM_PART = 2**19


def add_product(total: Array, x: Array, w: Array) -> None:
    """Adds a matrix product to a matrix, in place. The plain form is `total += x @ w`, with a second matrix like total.

    Shapes: total `[n_rows, n_out]`, x `[n_rows, n_in]`, w `[n_in, n_out]`.

    >>> total = np.ones((1, 1))
    >>> add_product(total, np.array([[1.0, 2.0]]), np.array([[10.0], [1.0]]))
    >>> total
    array([[13.]])
    """
    n = max(1, SUM_PART // total.shape[1])
    for i in range(0, len(total), n):
        total[i : i + n] += x[i : i + n] @ w
