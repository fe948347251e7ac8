"""The tokenizer: text to token ids and back, by byte-level byte-pair encoding (BPE).

    text      "Hello tokenizers"
    words     "Hello", " tokenizers"          split by the pattern below; no token crosses the edge of a word
    bytes     "Hello", "Ġtokenizers"          in UTF-8, each byte written as a printable character
    tokens    "Hello", "Ġtoken", "izers"      neighbours merged, the pairs most frequent in training first
    ids       [15496, 11241, 11341]           looked up in the vocabulary

Because the alphabet is bytes, every text can be written and no "unknown" token is needed.

Source: Sennrich et al. 2016 for byte-pair encoding; Radford et al. 2019, section 2.2, for doing it on bytes;
OpenAI's `src/encoder.py`.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import regex

from . import checks, interactive
from .machine.files import read_unchanged
from .text import memo, merging, padding, unicode, vocabulary
from .text.added_tokens import GPT2_ROLES, Roles
from .text.padding import Batch
from .text.pieces import pieces

END_OF_TEXT = "<|endoftext|>"

# A word is one of these, the first that matches: the ending of an English contraction; letters, digits, or other
# symbols, each with the space before them; or white space. A run of white space leaves its last space to the word that
# follows it (by `(?!\S)`), so " word" is one token however far it is indented.
SPLIT = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")


def split(text: str) -> list[str]:
    """The words of a text, by `SPLIT`. Joined, they are the text.

    >>> split("We're  here")
    ['We', "'re", ' ', ' here']
    """
    replaced = unicode.as_of_unicode_16(text)  # newer letters count as symbols, as in OpenAI's own tokenizer
    if replaced is text:
        return SPLIT.findall(text)
    return [text[word.start() : word.end()] for word in SPLIT.finditer(replaced)]


def byte_characters() -> list[str]:
    """The character that stands for each byte in the vocabulary files.

    The files are text, in which white space separates and control characters get lost. So the 188 bytes that
    are printable in Latin-1 stand for themselves. The other 68 get the characters from U+0100 on, in order:
    the space, byte 32, is the 33rd of them and becomes "Ġ" (U+0120).

    Source: `bytes_to_unicode` in OpenAI's `src/encoder.py`.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]


# For str.translate, which wants the numbers of characters. In Latin-1, the number of a character is its byte.
BYTE_TO_CHARACTER = dict(enumerate(byte_characters()))
CHARACTER_TO_BYTE = {ord(character): byte for byte, character in BYTE_TO_CHARACTER.items()}


def byte_spelling(text: str) -> str:
    """A text as the vocabulary files write it: one character for each byte in UTF-8.

    Raises:
        ValueError: the text holds half of a surrogate pair, which UTF-8 cannot encode.

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


def is_spelling(token: str) -> bool:
    """Whether each character of a token stands for a byte."""
    return {*map(ord, token)} <= CHARACTER_TO_BYTE.keys()


def merge(word: str, ranks: Mapping[str, int]) -> list[str]:
    """Byte-pair encoding of a word: merges the neighbours with the lowest rank until no pair can be merged.

    Args:
        word: the word, one character for each byte.
        ranks: the rank of each pair of tokens that may be merged, written with a space between them.

    Of equal pairs, the leftmost is merged first.

    Source: Sennrich et al. 2016, section 3.2; `bpe` in OpenAI's `src/encoder.py`.

    >>> merge("banana", {"a n": 0, "an a": 1, "b an": 2})
    ['ban', 'ana']
    """
    tokens = list(word)
    never = len(ranks)
    pair_ranks = [ranks.get(f"{left} {right}", never) for left, right in itertools.pairwise(tokens)]
    while pair_ranks and (lowest := min(pair_ranks)) < never:
        i = pair_ranks.index(lowest)
        tokens[i] += tokens.pop(i + 1)
        del pair_ranks[i]
        if i > 0:
            pair_ranks[i - 1] = ranks.get(f"{tokens[i - 1]} {tokens[i]}", never)
        if i < len(pair_ranks):
            pair_ranks[i] = ranks.get(f"{tokens[i]} {tokens[i + 1]}", never)
    return tokens


class Tokenizer(interactive.Hinting):
    """GPT-2's tokenizer, made from a vocabulary and a list of merges.

    Args:
        encoder: the id of each token, as in `encoder.json`. The ids are the numbers from 0 on, without gaps.
        merges: pairs of tokens that merge into one, as in the lines of `vocab.bpe`; earlier pairs merge first.
        special: tokens that no merge makes and that stand for no text, such as one for padding that was added in
            fine-tuning. `<|endoftext|>` need not be named.
        added: tokens that no merge makes and that any text may hold, such as a word that was added in fine-tuning.
        roles: the special tokens that Hugging Face's library is to use, by the names of their uses there, such as
            `pad_token`; by default, `<|endoftext|>` is the `bos_token`, the `eos_token` and the `unk_token`.
        n_ids: how many ids the model has, if it has more than there are tokens, as where their number was rounded up.

    Attributes:
        n_vocab: the number of tokens.
        end_of_text: the id of `<|endoftext|>`, which separates the texts that GPT-2 was trained on.

    Raises:
        ValueError: encoder and merges are not a vocabulary, or do not belong together.
    """

    _hints = interactive.TOKENIZER_HINTS

    def __init__(
        self,
        encoder: dict[str, int],
        merges: list[str],
        special: Iterable[str] = (),
        added: Iterable[str] = (),
        roles: Roles = GPT2_ROLES,
        n_ids: int = 0,
    ) -> None:
        self.special = tuple(sorted({END_OF_TEXT, *special}))
        self.added = tuple(sorted({*added} - {*self.special}))
        self.roles = dict(roles)
        parts = vocabulary.Vocabulary(encoder, merges, self.special, self.added, self.roles)
        vocabulary.check_vocabulary(parts, alphabet=BYTE_TO_CHARACTER.values())
        self.encoder = encoder
        # An added token is text, unless each of its characters could stand for a byte; so in Hugging Face's library.
        spelled = {token: byte_spelling(token) for token in (*self.special, *self.added) if not is_spelling(token)}
        self.decoder = [spelled.get(token, token) for token in sorted(encoder, key=encoder.__getitem__)]
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.n_vocab = len(encoder)
        self.n_ids = max(n_ids, self.n_vocab)
        self.end_of_text = encoder[END_OF_TEXT]
        self._memo = memo.Memo(self.encode_word)

    def __len__(self) -> int:
        return self.n_vocab

    def __repr__(self) -> str:
        return f"<Tokenizer: {', '.join(f'{what}: {n}' for what, n in self._counts())}>"

    def _repr_html_(self) -> str:
        return interactive.html_table("Tokenizer", self._counts())

    def _counts(self) -> list[tuple[str, int]]:
        """What there is of everything."""
        texts = {"special tokens": self.special, "added tokens": self.added}
        return [("tokens", self.n_vocab), ("merges", len(self.ranks)), *((what, len(t)) for what, t in texts.items())]

    @property
    def n_text(self) -> int:
        """How many ids a model needs to read any text in which no added token is found."""
        whole = {*self.special, *self.added}
        return 1 + max(id for token, id in self.encoder.items() if token not in whole)

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """GPT-2's own tokenizer: 50257 tokens. Its files come with the package."""
        return cls.load(Path(__file__).parent / "data" / "gpt2")

    @classmethod
    def load(cls, folder: str | Path, n_ids: int = 0) -> Tokenizer:
        """The tokenizer of a model's folder, from the files that `text.vocabulary` names.

        Args:
            folder: the folder.
            n_ids: how many ids the model has, if it has more than there are tokens.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: one of the files is not what its name says, the files do not belong together, or they
                describe another kind of tokenizer.
        """
        return read_unchanged(Path(folder), lambda current: cls._read(current, n_ids), vocabulary.TWO_FILES)

    @classmethod
    def _read(cls, folder: Path, n_ids: int) -> Tokenizer:
        """`load`, for a folder that nobody changes."""
        parts = vocabulary.read_vocabulary(folder)
        try:
            if END_OF_TEXT not in parts.special:
                raise ValueError(f"{END_OF_TEXT} is not one of the special tokens")
            return cls(*parts, n_ids=n_ids)
        except ValueError as error:
            files = " and ".join(file.name for file in vocabulary.find_vocabulary(folder))
            raise ValueError(f"{files} in {folder} do not make a tokenizer: {error}") from None

    def save(self, folder: str | Path, model_max_length: int | None = None) -> None:
        """Writes Hugging Face's `vocab.json`, `merges.txt` and `tokenizer_config.json`, for their library and `load`.

        Args:
            folder: the folder.
            model_max_length: the most tokens that the model can see.

        Raises:
            OSError: a file cannot be written.
        """
        parts = vocabulary.Vocabulary(self.encoder, [*self.ranks], self.special, self.added, self.roles)
        vocabulary.write_vocabulary(Path(folder), parts, model_max_length)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The token ids of a text.

        Args:
            text: any string that UTF-8 can encode.
            allow_special: whether `<|endoftext|>` in the text becomes one token, and likewise the other special
                tokens. By default it is thirteen characters like any others, as it should be in text from outside.

        Raises:
            ValueError: the text holds half of a surrogate pair, which UTF-8 cannot encode.

        >>> Tokenizer.gpt2().encode("Hello tokenizers")
        [15496, 11241, 11341]
        """
        ids: list[int] = []
        for _, part in self.encode_pieces(text, allow_special):
            ids += part
        return ids

    def encode_pieces(self, text: str, allow_special: bool = False) -> Iterator[tuple[str, list[int]]]:
        """The pieces of a text, one after another, each with its token ids: for a text of many megabytes.

        Args:
            text, allow_special: as for `encode`, which gives the same ids.

        Raises:
            ValueError: as `encode`.
        """
        whole = self.added + self.special if allow_special else self.added
        parts = regex.splititer(r"(\L<whole>)", text, whole=whole) if whole else [text]
        for number, part in enumerate(parts):
            if number % 2:  # every second one is a token that was found whole
                yield part, [self.encoder[part]]
            else:
                for piece in pieces(part):
                    yield piece, [id for word in split(piece) for id in self._memo[word]]

    def encode_word(self, word: str) -> list[int]:
        """The token ids of a word that `split` gives; `encode` remembers them.

        Raises:
            ValueError: as `encode`.
        """
        characters = byte_spelling(word)
        method = merge if len(characters) <= merging.LONG else merging.merge_long
        return [self.encoder[token] for token in method(characters, self.ranks)]

    def encode_batch(
        self, texts: Sequence[str], pad: int | None = None, truncate: int | None = None, allow_special: bool = False
    ) -> Batch:
        """The token ids of several texts in one array, padded on the right.

        `GPT2.generate` takes the whole `Batch`; the ids alone do not tell padding from text.

        Args:
            texts: the texts.
            pad: the id to pad with; by default that of `<|endoftext|>`, since GPT-2 has none for padding.
            truncate: the most tokens to keep of each text, from its beginning; by default all.
            allow_special: as for `encode`.

        Raises:
            ValueError: texts is a single one, `encode` refuses one of the texts, pad is not in the vocabulary, or
                truncate is not a number of tokens.

        >>> batch = Tokenizer.gpt2().encode_batch(["Hello", "Hello tokenizers"])
        >>> batch.ids
        array([[15496, 50256, 50256],
               [15496, 11241, 11341]])
        >>> batch.lengths
        array([1, 3])
        """
        if isinstance(texts, str):
            raise ValueError("encode_batch takes a list of texts, and this is one text: encode takes that")
        if truncate is not None:
            truncate = checks.check_whole_number("truncate", truncate)
        pad = self.end_of_text if pad is None else pad
        if not isinstance(pad, numbers.Integral) or not 0 <= pad < self.n_vocab:
            raise ValueError(f"pad must be an id of the vocabulary, 0 to {self.n_vocab - 1}, not {pad}")
        return padding.pad_right([self.encode(text, allow_special)[:truncate] for text in texts], pad)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Bytes that are not UTF-8, such as half a character, become "�".

        Raises:
            ValueError: an id is not in the vocabulary.

        >>> Tokenizer.gpt2().decode([15496, 11241, 11341])
        'Hello tokenizers'
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of token ids. A token may end in the middle of a character.

        An id that only the model has stands for no bytes, as in Hugging Face's library.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = list(ids)
        for id in ids:
            if not isinstance(id, numbers.Integral):
                raise ValueError(f"token ids must be one row of whole numbers, but one of them is {id!r}")
            if not 0 <= id < self.n_ids:
                raise ValueError(f"token id {id} is outside the vocabulary, which has the ids 0 to {self.n_ids - 1}")
        characters = "".join([self.decoder[id] for id in ids if id < self.n_vocab])
        return characters.translate(CHARACTER_TO_BYTE).encode("latin-1")
