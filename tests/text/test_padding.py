"""Rows of different lengths in one array."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from numpy_gpt2.text.padding import pad_right


@given(st.lists(st.lists(st.integers(0, 99), max_size=8), max_size=6), st.integers(0, 99))
def test_rows_begin_at_the_left_and_the_rest_is_padding(rows: list[list[int]], pad: int) -> None:
    ids, lengths, mask = pad_right(rows, pad)
    n_seq = max(map(len, rows), default=0)
    assert ids.shape == mask.shape == (len(rows), n_seq)
    assert ids.tolist() == [row + [pad] * (n_seq - len(row)) for row in rows]
    assert mask.tolist() == [[True] * len(row) + [False] * (n_seq - len(row)) for row in rows]
    assert lengths.tolist() == [len(row) for row in rows]
    assert [str(array.dtype) for array in (ids, lengths, mask)] == ["int64", "int64", "bool"]
