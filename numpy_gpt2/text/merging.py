"""Byte-pair encoding of long words, where `tokenizer.merge` takes time that grows with the square of the length."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

LONG = 40  # a word of more bytes is merged faster here than by `tokenizer.merge`
BLOCK = 512  # bytes; of a longer word, so much is merged at a time
OVERLAP = 16  # tokens that a block and the next one have in common


def merge_long(word: str, ranks: Mapping[str, int], size: int = BLOCK) -> list[str]:
    """The tokens that `tokenizer.merge` makes of a word, block by block.

    A block ends where it may, so its last tokens may be wrong. The next block begins `OVERLAP` tokens before the end of
    this one, and must find the same token there; else, the blocks are too small. So any two neighbours in the result
    were neighbours in a block.

    That is enough, because merging is local. No merge reached across the edge of two neighbours in their block; what
    was merged within them depended on nothing else, and so did which pair came first. Suppose that a merge of the
    whole word reached across an edge in the result. Up to the first such merge, the two tokens beside that edge were
    merged as in their block. So this merge would have been the next one there too.

    Args:
        word, ranks: as for `tokenizer.merge`.
        size: the size of a block.

    >>> merge_long("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    merged = functools.cache(functools.partial(merge_block, ranks=ranks))  # a word that repeats itself has equal blocks
    tokens: list[str] = []
    begin = 0
    block = merged(word[:size])
    while begin + size < len(word):
        kept, shared = block[:-OVERLAP], block[-OVERLAP:][0]
        begin += len("".join(kept))
        following = merged(word[begin : begin + size])
        if not kept or following[0] != shared:
            return merge_long(word, ranks, 2 * size)
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
    never = len(ranks)
    rank_at = [ranks.get(f"{left} {right}", never) for left, right in itertools.pairwise(tokens)]
    rank_at.append(never)
    heap = [rank * n + i for i, rank in enumerate(rank_at) if rank < never]  # a rank and a place in one number
    heapify(heap)
    while heap:
        rank, i = divmod(heappop(heap), n)
        if rank_at[i] != rank:  # one of the two has been merged with another since
            continue
        j = right_of[i]
        tokens[i] += tokens[j]  # the left place gets both, and the right one nothing
        tokens[j], rank_at[j] = "", never
        right_of[i] = right_of[j]
        left_of[right_of[i]] = i
        for place in left_of[i], i:
            rank_at[place] = new = ranks.get(f"{tokens[place]} {tokens[right_of[place]]}", never)
            if new < never:
                heappush(heap, new * n + place)
    return [token for token in tokens if token]
