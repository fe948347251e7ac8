"""The speed of the tokenizer in megabytes per second, compared with other libraries and OpenAI's published code."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from numpy_gpt2.tokenizer import BYTE_TO_CHARACTER, SPLIT, Tokenizer

Encode: TypeAlias = Callable[[str], object]
SOURCES = Path(__file__).parent.parent / "numpy_gpt2"
DATA = SOURCES / "data" / "gpt2"


def numpy_gpt2() -> Encode:
    """The project itself."""
    return Tokenizer.gpt2().encode


def tiktoken() -> Encode:
    """OpenAI's library, in Rust."""
    from tiktoken import Encoding
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(DATA / "vocab.bpe"), str(DATA / "encoder.json"))
    encoding = Encoding("gpt2", pat_str=SPLIT.pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    return encoding.encode_ordinary


def tokenizers() -> Encode:
    """Hugging Face's library, in Rust."""
    from tokenizers import ByteLevelBPETokenizer

    made: Any = ByteLevelBPETokenizer(str(DATA / "encoder.json"), str(DATA / "vocab.bpe"))
    return lambda text: made.encode(text).ids


def published() -> Encode:
    """The algorithm of OpenAI's `src/encoder.py`, which examines all pairs of a word again after each merge."""
    ours = Tokenizer.gpt2()
    rank = {tuple(pair.split(" ")): i for pair, i in ours.ranks.items()}
    never = len(rank)
    memo: dict[str, list[int]] = {}

    def bpe(characters: str) -> list[int]:
        word = tuple(characters)
        while len(word) > 1:
            first, second = best = min(itertools.pairwise(word), key=lambda pair: rank.get(pair, never))
            if best not in rank:
                break
            merged: list[str] = []
            i = 0
            while i < len(word):
                if word[i] == first and i + 1 < len(word) and word[i + 1] == second:
                    merged.append(first + second)
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            word = tuple(merged)
        return [ours.encoder[token] for token in word]

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in SPLIT.findall(text):
            word = "".join([BYTE_TO_CHARACTER[byte] for byte in part.encode()])
            if word not in memo:
                memo[word] = bpe(word)
            ids.extend(memo[word])
        return ids

    return encode


PEERS: dict[str, Callable[[], Encode]] = {
    "numpy_gpt2": numpy_gpt2,
    "tiktoken": tiktoken,
    "tokenizers": tokenizers,
    "published": published,
}


def texts(corpus: Path | None) -> dict[str, str]:
    """The texts to tokenize: 4 MB of a corpus, if there is one; source code; several scripts; very long words.

    Raises:
        OSError: the corpus cannot be read.
        RuntimeError: the corpus is empty.
    """
    found = {} if corpus is None else {"natural text": corpus.read_bytes()[:4_000_000].decode("utf-8", "ignore")}
    if not all(found.values()):
        raise RuntimeError(f"{corpus} contains no text")
    found["source code"] = "".join(file.read_text("utf-8") for file in sorted(SOURCES.rglob("*.py")))
    found["several scripts"] = several_scripts()
    for n in 10_000, 100_000:
        found[f"one word of {n:,} letters"] = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=n))
    found["one word of 4,000 letters, a and b"] = "ab" * 2000
    return found


def several_scripts(n_words: int = 60_000) -> str:
    """Random words in ten scripts: 70% are drawn from 500 frequent words, the others are unique."""
    rng = random.Random(0)
    scripts = ["az", "àÿ", "αω", "ая", "את", "ءي", "अह", "ぁん", "가힣", "一鿿"]

    def word() -> str:
        first, last = map(ord, rng.choice(scripts))
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 9)))

    frequent = [word() for _ in range(500)]
    return " ".join(rng.choice(frequent) if rng.random() < 0.7 else word() for _ in range(n_words))


def measure(text: str, rounds: int, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """The time of each tokenizer in seconds: cold, when it first sees the text, and warm, the second time.

    The published algorithm is left out for very long words, which would take it minutes.
    """
    names = [name for name in names if name != "published" or " " in text or len(text) <= 10_000]
    seconds: dict[str, dict[str, list[float]]] = {state: {name: [] for name in names} for state in ("cold", "warm")}
    rng = random.Random(0)
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            encode = PEERS[name]()
            for of_each in seconds.values():
                start = perf_counter()
                encode(text)
                of_each[name].append(perf_counter() - start)
    return seconds
