"""Learning a vocabulary: which tokens a text is written in.

It begins with the 256 bytes. The pair of neighbouring tokens that is most frequent in the text becomes a token of its
own, again and again, until there are as many tokens as asked for. The order of these merges is all that `Tokenizer`
needs to write any text in the same way.

`learn_plain` is this in a few lines, and counts all pairs anew for each merge. `learn` finds the same merges, and
counts only the pairs that a merge has touched.

Source: Sennrich et al. 2016, section 3.2, algorithm 1; on bytes, Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..text.pieces import pieces
from ..text.vocabulary import Vocabulary
from ..tokenizer import BYTE_TO_CHARACTER, END_OF_TEXT, byte_spelling, split

Pair = tuple[str, str]

N_BYTES = len(BYTE_TO_CHARACTER)


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word is in some texts.

    Args:
        texts: the texts. `<|endoftext|>` in them separates documents, and is no word.

    >>> count_words(["a cat<|endoftext|>a hat", "a cat"])
    Counter({'a': 3, ' cat': 2, ' hat': 1})
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for piece in pieces(text):  # END_OF_TEXT has no white space, so it is whole in a piece
            for document in piece.split(END_OF_TEXT):
                counts.update(split(document))
    return counts


def byte_tokens(words: Iterable[str]) -> list[list[str]]:
    """The tokens of words before any merge: one for each byte, by the character that stands for it.

    Raises:
        ValueError: a word holds half of a surrogate pair, which UTF-8 cannot encode.

    >>> byte_tokens([" hé"])
    [['Ġ', 'h', 'Ã', '©']]
    """
    return [list(byte_spelling(word)) for word in words]


def count_pairs(words: Iterable[Sequence[str]], counts: Iterable[int]) -> Counter[Pair]:
    """How often each pair of neighbouring tokens is in some words.

    Args:
        words: the tokens of each word.
        counts: how often each word is in the text.

    >>> count_pairs([["l", "o", "w"], ["l", "o", "t"]], [5, 2])
    Counter({('l', 'o'): 7, ('o', 'w'): 5, ('o', 't'): 2})
    """
    pairs: Counter[Pair] = Counter()
    for tokens, count in zip(words, counts, strict=True):
        for pair in itertools.pairwise(tokens):
            pairs[pair] += count
    return pairs


def merge_pair(tokens: Sequence[str], pair: Pair) -> list[str]:
    """The tokens of a word, after each pair of neighbours that is this one has become one token.

    >>> merge_pair(["n", "a", "n", "a"], ("n", "a"))
    ['na', 'na']
    """
    merged: list[str] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def learn_plain(counts: Mapping[str, int], n_tokens: int) -> list[Pair]:
    """The merges of a vocabulary, as plainly as possible.

    Of pairs that are equally frequent, the one with the oldest first token is merged, and of these the one with the
    oldest second token. Bytes are the oldest, in the order of their characters.

    Args:
        counts: how often each word is in the text, at least once, as `count_words` gives it.
        n_tokens: how many tokens there are to be, with the 256 bytes.

    Returns:
        The pairs, in the order in which they merge; fewer than asked for if each word has become one token before.

    Raises:
        ValueError: a word is not UTF-8.

    >>> learn_plain({"low": 5, "lower": 2, "newest": 6}, n_tokens=260)
    [('w', 'e'), ('l', 'o'), ('e', 'we'), ('n', 'ewe')]
    """
    words = byte_tokens(counts)
    age = ages_of_bytes()
    merges: list[Pair] = []
    while len(age) < n_tokens and (pairs := count_pairs(words, counts.values())):
        pair = min(pairs, key=lambda pair: (-pairs[pair], age[pair[0]], age[pair[1]]))
        merges.append(pair)
        age["".join(pair)] = len(age)
        words = [merge_pair(word, pair) for word in words]
    return merges


def ages_of_bytes() -> dict[str, int]:
    """The bytes, numbered in the order of their characters. Each new token gets the next number."""
    return {character: age for age, character in enumerate(sorted(BYTE_TO_CHARACTER.values()))}


class Words:
    """The words of a text, and how often each pair of neighbouring tokens is in them, kept up to date by `merge`.

    Attributes:
        tokens: the tokens of each word.
        counts: how often each word is in the text.
        pairs: how often each pair is in the text.
        places: for each pair, the numbers of the words that have held it.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        """Begins with words in bytes.

        Args:
            counts: how often each word is in the text, at least once.

        Raises:
            ValueError: a word is not UTF-8.
        """
        self.tokens = byte_tokens(counts)
        self.counts = list(counts.values())
        self.pairs = count_pairs(self.tokens, self.counts)
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        for i, tokens in enumerate(self.tokens):
            for pair in itertools.pairwise(tokens):
                self.places[pair].add(i)

    def merge(self, pair: Pair) -> list[Pair]:
        """Merges a pair in all words.

        Returns:
            The pairs whose count has changed.
        """
        changes: Counter[Pair] = Counter()
        for i in self.places.pop(pair):
            before, after = self.tokens[i], merge_pair(self.tokens[i], pair)
            self.tokens[i] = after
            for old in itertools.pairwise(before):
                changes[old] -= self.counts[i]
            for new in itertools.pairwise(after):
                changes[new] += self.counts[i]
                self.places[new].add(i)
        changed = [pair for pair, change in changes.items() if change]
        for each in changed:
            self.pairs[each] += changes[each]
        return changed


def learn(counts: Mapping[str, int], n_tokens: int) -> Iterator[Pair]:
    """The merges that `learn_plain` finds, one after another, in a fraction of the time.

    A merge changes the counts of few pairs. The most frequent one is found in a heap: for each count that has changed,
    there is a new entry, and an entry is skipped if the count is not that of its pair any more.

    >>> list(learn({"low": 5, "lower": 2, "newest": 6}, n_tokens=260))
    [('w', 'e'), ('l', 'o'), ('e', 'we'), ('n', 'ewe')]
    """
    words = Words(counts)
    age = ages_of_bytes()

    def entry(pair: Pair) -> tuple[int, int, int, Pair]:
        left, right = pair
        return -words.pairs[pair], age[left], age[right], pair

    heap = [entry(pair) for pair in words.pairs]
    heapq.heapify(heap)
    while len(age) < n_tokens and heap:
        count, *_, pair = heapq.heappop(heap)
        if -count != words.pairs[pair] or count == 0:
            continue
        yield pair
        age["".join(pair)] = len(age)
        for changed in words.merge(pair):
            heapq.heappush(heap, entry(changed))


def from_merges(merges: Iterable[Pair]) -> Vocabulary:
    """A vocabulary: the bytes, in the order of their characters; what merges make, in their order; `<|endoftext|>`."""
    merges = list(merges)
    tokens = [*ages_of_bytes(), *map("".join, merges), END_OF_TEXT]
    return Vocabulary({token: id for id, token in enumerate(tokens)}, [" ".join(pair) for pair in merges])
