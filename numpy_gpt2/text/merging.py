"""Byte-pair encoding of long words, in n log n time, where `tokenizer.merge` takes n^2."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping

LONG = 20  # a word of more bytes is merged faster here than by `tokenizer.merge`


def merge_long(word: str, ranks: Mapping[str, int]) -> list[str] | None:
    """The tokens that `tokenizer.merge` makes of a word, or None if this method cannot find them.

    All places of a pair are joined together, from left to right. Pairs wait for their turn in a heap, each
    with the places where it was seen. The places know their neighbours, as in a linked list.

    A trained vocabulary makes a token before it makes others from that token, so joining a pair never creates
    one of lower rank. In a vocabulary where it does, that pair would come before the other places of the
    first, and the result is None.

    >>> merge_long("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    n = len(word)
    tokens = list(word)  # when two are joined, the left place gets both and the right one ""
    left_of = list(range(-1, n - 1))
    right_of = list(range(1, n + 1))
    waiting: dict[tuple[str, str], list[int]] = {}  # where each pair that may be joined begins
    heap: list[tuple[int, tuple[str, str]]] = []  # the ranks of these pairs

    def offer(places: Iterable[int]) -> int:
        """Lets the pairs at these places wait, where they may be joined; returns the lowest new rank."""
        lowest = len(ranks)
        places_of: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i in places:
            places_of[tokens[i], tokens[right_of[i]]].append(i)
        for pair, new in places_of.items():
            if pair in waiting:
                waiting[pair] += new
            elif (rank := ranks.get(" ".join(pair))) is not None:
                waiting[pair] = new
                heapq.heappush(heap, (rank, pair))
                lowest = min(lowest, rank)
        return lowest

    offer(range(n - 1))
    while heap:
        rank, pair = heapq.heappop(heap)
        left, right = pair
        if ranks.get(f"{left}{right} {left}", rank) < rank:  # a pair between two places of this one comes first
            return None
        joined: list[int] = []
        for i in sorted(waiting.pop(pair)):
            j = right_of[i]
            if tokens[i] == left and j < n and tokens[j] == right:  # neither has been joined to another since
                tokens[i] = left + right
                tokens[j] = ""
                right_of[i] = right_of[j]
                if right_of[i] < n:
                    left_of[right_of[i]] = i
                joined.append(i)
        created: list[int] = []  # places of pairs that did not exist before
        previous = -1
        for i in joined:
            if left_of[i] > previous:  # otherwise it is the pair to the right of the previous place
                created.append(left_of[i])
            if right_of[i] < n:
                created.append(i)
            previous = i
        if offer(created) < rank:
            return None
    return [token for token in tokens if token]
