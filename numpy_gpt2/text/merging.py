"""Byte-pair encoding of long words, where `tokenizer.merge` takes time that grows with the square of the length."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

LONG = 64  # a word of more bytes is merged faster here than by `tokenizer.merge`
BLOCK = 256  # bytes; of a longer word, so much is merged at a time
OVERLAP = 8  # tokens of a block that the next one finds again


def merge_long(word: str, ranks: Mapping[str, int], size: int = BLOCK, overlap: int = OVERLAP) -> list[str]:
    """The tokens that `tokenizer.merge` makes of a word, block by block.

    A block may end within a token, so its last tokens may be wrong. The next block begins `overlap` tokens before that
    end and must find the same token first; otherwise, all begins again with larger blocks. So any two neighbours in the
    result are neighbours in a block.

    That suffices. In a block, no merge crosses the edges of two neighbours. So the merges within the two were those of
    the two alone, in the same order. Suppose that a merge of the whole word crosses the edge between two neighbours of
    the result, and take the first merge that crosses any such edge. Until then, these two were merged as they are
    alone. So that merge would come next there too, and cross the edge in the block.

    Args:
        word, ranks: as for `tokenizer.merge`.
        size: bytes in a block.
        overlap: tokens that a block and the next one have in common.

    >>> merge_long("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    merged = functools.cache(functools.partial(merge_block, ranks=ranks))  # blocks of a repetitive word are equal
    tokens: list[str] = []
    begin = 0
    block = merged(word[:size])
    while begin + size < len(word):
        kept, shared = block[:-overlap], block[-overlap:][0]
        begin += len("".join(kept))
        following = merged(word[begin : begin + size])
        if not kept or following[0] != shared:
            return merge_long(word, ranks, 2 * size, overlap)
        tokens += kept
        block = following
    return tokens + block


def merge_block(word: str, ranks: Mapping[str, int]) -> list[str]:
    """The tokens that `tokenizer.merge` makes of a word, in n log n time.

    The pairs wait for their turn in a heap, by their ranks; those of equal rank wait from left to right. The tokens
    know their neighbours, as in a linked list.

    >>> merge_block("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    tokens = [*word, ""]  # in a ring: the empty one is beside both ends, and no pair with it has a rank
    n = len(tokens)
    left_of = [*range(-1, n - 1)]
    right_of = [*range(1, n), 0]
    never, rank_of = len(ranks), ranks.get
    rank_at = [rank_of(f"{left} {right}", never) for left, right in itertools.pairwise(tokens)]
    rank_at.append(never)
    heap = [rank * n + i for i, rank in enumerate(rank_at) if rank < never]  # a rank and a place in one number
    heapify(heap)
    while heap:
        rank, i = divmod(heappop(heap), n)
        if rank_at[i] != rank:  # one of the two has been merged with another since
            continue
        j = right_of[i]
        tokens[i] = token = tokens[i] + tokens[j]  # the left place gets both, and the right one nothing
        tokens[j], rank_at[j] = "", never
        h, k = left_of[i], right_of[j]
        right_of[i], left_of[k] = k, i
        rank_at[i] = rank = rank_of(f"{token} {tokens[k]}", never)
        if rank < never:
            heappush(heap, rank * n + i)
        rank_at[h] = rank = rank_of(f"{tokens[h]} {token}", never)
        if rank < never:
            heappush(heap, rank * n + h)
    return [token for token in tokens if token]
