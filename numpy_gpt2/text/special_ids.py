"""The tokens that have a use, by their ids."""

from __future__ import annotations

from typing import NamedTuple


class SpecialIds(NamedTuple):
    """The tokens that have a use, by the names of Hugging Face's configurations."""

    eos_token_ids: tuple[int, ...] = ()  # each of them ends a text
    bos_token_id: int | None = None  # a text without a prompt begins after it
    pad_token_id: int | None = None  # not used here, and saved as it was
