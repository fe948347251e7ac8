"""The tokenizer: text to token ids and back, by GPT-2's byte-level byte-pair encoding (BPE).

    text      "Hello tokenizers"
    words     "Hello", " tokenizers"          split by the pattern below; no token crosses a word's edge
    bytes     "Hello", "Ġtokenizers"          in UTF-8, each byte written as a printable character
    tokens    "Hello", "Ġtoken", "izers"      neighbours joined, the most frequent pairs first
    ids       [15496, 11241, 11341]           looked up in the vocabulary

Because the alphabet is bytes, there is no text that it cannot write and no "unknown" token.

Source: Sennrich et al. 2016 for byte-pair encoding; Radford et al. 2019, section 2.2, for doing it on
bytes; OpenAI's `src/encoder.py`.
"""

from __future__ import annotations

import heapq
import itertools
import numbers
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import regex

from .vocabulary import Vocabulary, find_vocabulary, read_vocabulary, write_vocabulary

END_OF_TEXT = "<|endoftext|>"

# A word is, in this order of preference: the ending of an English contraction; letters, numbers, or
# punctuation and symbols, each with one space before them if there is one; or white space. A run of
# white space gives its last space to the word that follows (that is what `(?!\S)` leaves it for), so
# that " word" is one token however far it is indented.
SPLIT = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")

# Unicode grows every year, and `regex` adopts a new version on its own schedule; tiktoken and Hugging
# Face's tokenizers are at 16.0. Letters and numbers that came later count as symbols here, as there.
LATER_THAN_UNICODE_16 = regex.compile(
    "[\u0558\u058b-\u058c\u088f\u0c5c\u0cdc\u208f\u209d-\u209f\ua7ce-\ua7cf\ua7d2\ua7d4\ua7dd-\ua7f1\uab6c-\uab6d"
    "\U000107bb-\U000107bf\U00010940-\U00010959\U00010ec5-\U00010eee\U00011b0a\U00011db0-\U00011df1"
    "\U0001246f-\U0001247f\U00012550-\U00012686\U00016ea0-\U00016ed3\U00016ff2-\U00016ff6"
    "\U000187f8-\U000187ff\U00018cd6-\U00018cda\U00018d09-\U000191d2\U0001b123-\U0001b128\U0001b168"
    "\U0001d6a6\U0001df1f-\U0001df24\U0001df2b-\U0001dfff\U0001e6c0-\U0001e6ff"
    "\U0002b73a-\U0002b73f\U0002b81e\U0002cea2-\U0002cead\U000323b0-\U0003fc3f]"
)

# What a memo holds at most, so that a hostile text cannot fill the memory.
MEMO_CHARACTERS = 2**20  # of all words together
MEMO_WORD = 2**14  # the longest, in characters

SHORT = 20  # the longest word, in bytes, that `merge` is faster with than `merge_long`


def byte_characters() -> list[str]:
    """The character that stands for each byte in the vocabulary files.

    The files are text, in which white space separates and control characters get lost. So the 188
    bytes that print in Latin-1 stand for themselves, and the other 68 get the characters from U+0100
    on, in order: the space, byte 32, is the 33rd of them and becomes "Ġ" (U+0120).

    Source: `bytes_to_unicode` in OpenAI's `src/encoder.py`.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]


# Both for str.translate, whose keys are the numbers of characters; as Latin-1, a byte is a character.
BYTE_TO_CHARACTER = dict(enumerate(byte_characters()))
CHARACTER_TO_BYTE = {ord(character): byte for byte, character in BYTE_TO_CHARACTER.items()}


def byte_spelling(text: str) -> str:
    """A text as the vocabulary files write it: a character for each byte in UTF-8.

    Raises:
        ValueError: the text holds half of a surrogate pair, which UTF-8 cannot carry.

    >>> byte_spelling(" é")
    'ĠÃ©'
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        # Python reads a byte that is not UTF-8 as U+DC00 plus its value.
        what = f"the byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}, half a surrogate pair"
        raise ValueError(f"the text is not UTF-8: it holds {what}") from None
    return data.decode("latin-1").translate(BYTE_TO_CHARACTER)


class Batch(NamedTuple):
    """Texts in token ids, padded on the right to the length of the longest."""

    ids: npt.NDArray[np.int64]  # [n_batch, n_seq]
    lengths: npt.NDArray[np.int64]  # of each text without its padding, [n_batch]
    mask: npt.NDArray[np.bool_]  # True where a token is of the text, False where it is padding, [n_batch, n_seq]


class Tokenizer:
    """GPT-2's tokenizer, made from a vocabulary and a list of merges.

    Args:
        encoder: the id of each token, as in `encoder.json`. Ids count from 0 without a gap.
        merges: pairs of tokens that join to one, as the lines of `vocab.bpe`; the first is tried first.
        special: tokens that no merge makes, such as one for padding that was added in fine-tuning;
            `<|endoftext|>` need not be named.

    Attributes:
        n_vocab: how many tokens there are.
        end_of_text: the id of `<|endoftext|>`, which separates the texts that GPT-2 was trained on.

    Raises:
        ValueError: encoder and merges are not a vocabulary, or do not belong together.
    """

    def __init__(self, encoder: dict[str, int], merges: list[str], special: Iterable[str] = ()) -> None:
        self.special = tuple(sorted({END_OF_TEXT, *special}))
        check_vocabulary(encoder, merges, self.special)
        self.encoder = encoder
        self.decoder = [
            byte_spelling(token) if token in self.special else token
            for token in sorted(encoder, key=encoder.__getitem__)
        ]
        self.ranks = dict(zip(merges, range(len(merges)), strict=True))
        self.n_vocab = len(encoder)
        self.end_of_text = encoder[END_OF_TEXT]
        self._memo = Memo(self._encode_word)

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """GPT-2's own tokenizer: 50257 tokens. The package carries its files."""
        return cls.load(Path(__file__).parent / "data" / "gpt2")

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a model's folder, from the files that `vocabulary.py` names.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: one of the files is not what its name says, they do not belong together, or they
                describe another kind of tokenizer.
        """
        vocabulary = read_vocabulary(Path(folder))
        try:
            return cls(*vocabulary)
        except ValueError as error:
            files = " and ".join(file.name for file in find_vocabulary(Path(folder)))
            raise ValueError(f"{files} in {folder} do not make a tokenizer: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Writes the vocabulary as Hugging Face's `vocab.json` and `merges.txt`, for their tokenizers and for `load`.

        Raises:
            OSError: a file cannot be written.
        """
        added = tuple(token for token in self.special if token != END_OF_TEXT)
        write_vocabulary(Path(folder), Vocabulary(self.encoder, [*self.ranks], added))

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The token ids of a text.

        Args:
            text: any string that UTF-8 can carry.
            allow_special: whether `<|endoftext|>` in the text becomes that one token (and so with other
                special tokens). If not, which is right for text from outside, it is thirteen characters
                like any others.

        Raises:
            ValueError: the text holds half of a surrogate pair, which UTF-8 cannot carry.

        >>> Tokenizer.gpt2().encode("Hello tokenizers")
        [15496, 11241, 11341]
        """
        if allow_special:
            parts = regex.split(r"(\L<special>)", text, special=self.special)  # plain, special, plain, ...
            plain = [self.encode(part) for part in parts[::2]]
            return plain[0] + [
                id for token, ids in zip(parts[1::2], plain[1:], strict=True) for id in (self.encoder[token], *ids)
            ]
        return [id for word in split(text) for id in self._memo[word]]

    def encode_batch(
        self, texts: Sequence[str], pad: int | None = None, truncate: int | None = None, allow_special: bool = False
    ) -> Batch:
        """The token ids of several texts in one array, padded on the right.

        `GPT2.generate` takes the whole `Batch`; in the ids alone, it could not tell padding from text.

        Args:
            texts: the texts.
            pad: the id to pad with; by default that of `<|endoftext|>`, since GPT-2 has none for padding.
            truncate: how many tokens to keep of a text at most, from its beginning; by default all.
            allow_special: as in `encode`.

        Raises:
            ValueError: texts is a single one, `encode` refuses one of them, pad is not in the vocabulary,
                or truncate is negative.

        >>> batch = Tokenizer.gpt2().encode_batch(["Hello", "Hello tokenizers"])
        >>> batch.ids
        array([[15496, 50256, 50256],
               [15496, 11241, 11341]])
        >>> batch.lengths
        array([1, 3])
        """
        if isinstance(texts, str):
            raise ValueError("encode_batch takes a list of texts, and this is one text: encode takes that")
        if truncate is not None and (not isinstance(truncate, numbers.Integral) or truncate < 0):
            raise ValueError(f"truncate must be a number of tokens, 0 or more, not {truncate}")
        pad = self.end_of_text if pad is None else pad
        if not isinstance(pad, numbers.Integral) or not 0 <= pad < self.n_vocab:
            raise ValueError(f"pad must be an id of the vocabulary, 0 to {self.n_vocab - 1}, not {pad}")
        return pad_right([self.encode(text, allow_special)[:truncate] for text in texts], pad)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Bytes that are not UTF-8, as in half a character, become "�".

        Raises:
            ValueError: an id is not in the vocabulary.

        >>> Tokenizer.gpt2().decode([15496, 11241, 11341])
        'Hello tokenizers'
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids. A token may end in the middle of a character.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = list(ids)
        for id in ids:
            if not isinstance(id, numbers.Integral):
                raise ValueError(f"token ids must be one row of whole numbers, but one of them is {id!r}")
            if not 0 <= id < self.n_vocab:
                raise ValueError(f"token id {id} is outside the vocabulary, which has the ids 0 to {self.n_vocab - 1}")
        characters = "".join([self.decoder[id] for id in ids])
        return characters.translate(CHARACTER_TO_BYTE).encode("latin-1")

    def _encode_word(self, word: str) -> list[int]:
        characters = byte_spelling(word)
        tokens = merge(characters, self.ranks) if len(characters) <= SHORT else merge_long(characters, self.ranks)
        return [self.encoder[token] for token in tokens]


class Memo(dict[str, list[int]]):
    """The ids of each word, computed when it is asked for, and kept: most words of a text are in it many times."""

    def __init__(self, encode_word: Callable[[str], list[int]]) -> None:
        self._encode_word = encode_word
        self._n_characters = 0

    def __missing__(self, word: str) -> list[int]:
        ids = self._encode_word(word)
        if len(word) <= MEMO_WORD:
            self._n_characters += len(word)
            if self._n_characters > MEMO_CHARACTERS:
                self.clear()
                self._n_characters = len(word)
            self[word] = ids
        return ids


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Batch:
    """Rows of ids in one array, the shorter ones filled up with the id `pad`.

    Shapes: rows of any lengths to `[n_batch, n_seq]`, where n_seq is the greatest of them.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.full(mask.shape, pad, np.int64)
    ids[mask] = [id for row in rows for id in row]
    return Batch(ids, lengths, mask)


def split(text: str) -> list[str]:
    """The words of a text, as `SPLIT` describes them. Joined, they are the text.

    >>> split("We're  here")
    ['We', "'re", ' ', ' here']
    """
    if text.isascii() or not LATER_THAN_UNICODE_16.search("".join({*text})):
        return SPLIT.findall(text)
    as_of_unicode_16 = LATER_THAN_UNICODE_16.sub("\N{REPLACEMENT CHARACTER}", text)
    return [text[word.start() : word.end()] for word in SPLIT.finditer(as_of_unicode_16)]


def merge(word: str, ranks: dict[str, int]) -> list[str]:
    """Byte-pair encoding of one word: joins the two neighbours with the lowest rank until none can be joined.

    Args:
        word: the word, a character for each byte.
        ranks: the rank of each pair of tokens that may be joined, written with a space between them.

    Among equal pairs the leftmost is joined first.

    Source: Sennrich et al. 2016, section 3.2; `bpe` in OpenAI's `src/encoder.py`.

    >>> merge("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    tokens = list(word)
    never = len(ranks)
    pairs = [ranks.get(f"{left} {right}", never) for left, right in itertools.pairwise(tokens)]  # the rank of each
    while pairs and (lowest := min(pairs)) < never:
        i = pairs.index(lowest)
        tokens[i] += tokens.pop(i + 1)
        del pairs[i]
        if i > 0:
            pairs[i - 1] = ranks.get(f"{tokens[i - 1]} {tokens[i]}", never)
        if i < len(pairs):
            pairs[i] = ranks.get(f"{tokens[i]} {tokens[i + 1]}", never)
    return tokens


def merge_long(word: str, ranks: dict[str, int]) -> list[str]:
    """The same for a word of any length: n characters take n log n time, where `merge` takes n^2.

    All places of a pair are joined together, from left to right. Pairs wait for their turn in a heap, each
    with the places where it has been seen; places know their neighbours as in a linked list. In a
    vocabulary that comes from training, a token is made before it is a part of others: so no pair that
    comes about has a lower rank than the one just joined. Should one have, its turn would come before
    that of the other places: then `merge` does it all.

    >>> merge_long("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    n = len(word)
    tokens = list(word)  # when two are joined, the left place gets both and the right one ""
    left_of = list(range(-1, n - 1))
    right_of = list(range(1, n + 1))
    waiting: dict[tuple[str, str], list[int]] = {}  # where each pair that may be joined begins
    heap: list[tuple[int, tuple[str, str]]] = []  # their ranks

    def offer(places: Iterable[int]) -> int:
        """Lets the pairs that begin at these places wait, if they may be joined; returns the lowest new rank."""
        lowest = len(ranks)
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i in places:
            found[tokens[i], tokens[right_of[i]]].append(i)
        for pair, new in found.items():
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
        if ranks.get(f"{left}{right} {left}", rank) < rank:  # between two places of the pair
            return merge(word, ranks)
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
        places: list[int] = []  # of the pairs that have come about
        before = -1
        for i in joined:
            if left_of[i] > before:  # or else it is the pair right of the one before
                places.append(left_of[i])
            if right_of[i] < n:
                places.append(i)
            before = i
        if offer(places) < rank:
            return merge(word, ranks)
    return [token for token in tokens if token]


def check_vocabulary(encoder: dict[str, int], merges: list[str], special: Iterable[str]) -> None:
    """Checks that every byte is a token, that every merge makes one, and that no others are there but the special ones.

    So a file that was cut short is noticed: with it, the same text would become other tokens.

    Raises:
        ValueError: encoder and merges are not a vocabulary, or do not belong together.
    """
    if not isinstance(encoder, dict) or {*map(type, encoder.values())} != {int}:
        raise ValueError("the vocabulary must give a whole number for each token")
    if sorted(encoder.values()) != [*range(len(encoder))]:
        raise ValueError(f"the ids of the {len(encoder)} tokens must be the numbers 0 to {len(encoder) - 1}")
    for number, line in enumerate(merges, start=1):
        if line.count(" ") != 1:
            raise ValueError(f"merge {number} is {line!r}, which is not two tokens with a space between them")
    if strange := {*"".join(merges)} - {*BYTE_TO_CHARACTER.values(), " "}:
        raise ValueError(f"there are merges with {min(strange)!r}, a character that stands for no byte")
    expected = {*BYTE_TO_CHARACTER.values(), *(line.replace(" ", "") for line in merges), *special}
    if expected != encoder.keys():
        odd = min(expected ^ encoder.keys())
        raise ValueError(f"{odd!r} is " + ("missing from the vocabulary" if odd in expected else "made by no merge"))
