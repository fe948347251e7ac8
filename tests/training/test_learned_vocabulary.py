"""Learned vocabularies: against counts made anew, Hugging Face's trainer, and the tokenizers that read the files."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str
from transformers import GPT2TokenizerFast

from numpy_gpt2 import layers, model, sampling, tokenizer
from numpy_gpt2.cli.main import main
from numpy_gpt2.text import merging, vocabulary
from numpy_gpt2.text.vocabulary import OPENAI
from numpy_gpt2.tokenizer import END_OF_TEXT, Tokenizer, split
from numpy_gpt2.training.vocabulary import (
    Words,
    byte_tokens,
    count_pairs,
    count_words,
    from_merges,
    learn,
    learn_plain,
    merge_pair,
)

# Text that is here anyway: it has words, code, numbers, white space and a few characters that are not ASCII.
SOURCES = [Path(str(module.__file__)) for module in (layers, model, sampling, tokenizer, vocabulary, merging)]
TEXT = "\n".join(file.read_text(encoding="utf-8") for file in SOURCES)
DOCUMENTS = TEXT.split(END_OF_TEXT)

STRANGE = "naïve 漢字 🙂\t\t  x\r\n don't ١٢٣ zzzzzzzz"

few_letters = st.dictionaries(st.text("abc é", min_size=1, max_size=8), st.integers(1, 9), max_size=12)


def trained_by_hugging_face(texts: Iterable[str], n_tokens: int, splits: bool) -> list[tuple[str, str]]:
    """The merges that the trainer of Hugging Face's `tokenizers` finds; unless it splits, each text is a word."""
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=n_tokens, initial_alphabet=alphabet, show_progress=False)
    peer.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(peer.to_str())["model"]["merges"]]


@given(few_letters, st.integers(256, 290))
def test_fast_and_plain_find_the_same_merges(words: dict[str, int], n_tokens: int) -> None:
    assert list(learn(words, n_tokens)) == learn_plain(words, n_tokens)


@given(few_letters, st.integers(256, 290))
def test_merges_are_those_of_hugging_face(words: dict[str, int], n_tokens: int) -> None:
    """Also of pairs that are equally frequent, which few letters often are: the oldest tokens are merged first."""
    repeated = itertools.chain.from_iterable([word] * n for word, n in words.items())
    assert learn_plain(words, n_tokens) == trained_by_hugging_face(repeated, n_tokens, splits=False)


def test_merges_of_a_text_are_those_of_hugging_face() -> None:
    n_tokens = 1500
    assert list(learn(count_words([TEXT]), n_tokens)) == trained_by_hugging_face(DOCUMENTS, n_tokens, splits=True)


@given(few_letters, st.lists(st.integers(0, 99), max_size=12))
def test_updated_counts_are_those_of_counting_anew(words: dict[str, int], choices: list[int]) -> None:
    """Whichever pairs are merged, in whichever order."""
    text = Words(words)
    plain = byte_tokens(words)
    for choice in choices:
        before = count_pairs(plain, words.values())
        if not before:
            break
        pair = sorted(before)[choice % len(before)]
        changed = text.merge(pair)
        plain = [merge_pair(tokens, pair) for tokens in plain]
        after = count_pairs(plain, words.values())
        assert text.tokens == plain
        assert +text.pairs == after
        assert sorted(pair for pair in before | after if before[pair] != after[pair]) == sorted(changed)


@given(st.lists(st.sampled_from("ab"), max_size=12))
def test_a_merged_word_spells_the_same(tokens: list[str]) -> None:
    merged = merge_pair(tokens, ("a", "b"))
    assert "".join(merged) == "".join(tokens)
    assert merged.count("ab") == "".join(tokens).count("ab")


@given(st.text(max_size=300))
def test_words_are_those_of_the_tokenizer(text: str) -> None:
    assert count_words([text, text]) == Counter(split(text) * 2)


def test_words_of_a_long_text_are_counted_whole() -> None:
    """A text is read in pieces, which cut no word."""
    text = "the  king\n\n and his daughter " * 3000
    assert count_words([text]) == Counter(split(text))


def test_no_token_crosses_the_end_of_a_document() -> None:
    words = count_words([f"king{END_OF_TEXT}dom{END_OF_TEXT}", f"{END_OF_TEXT}king"])
    assert words == {"king": 2, "dom": 1}


@given(few_letters)
def test_each_merge_makes_a_new_token(words: dict[str, int]) -> None:
    tokens = ["".join(pair) for pair in learn_plain(words, 400)]
    assert len({*tokens}) == len(tokens)


def test_words_with_half_a_character_are_refused() -> None:
    with pytest.raises(ValueError, match="the text is not UTF-8: it holds the byte 0xFF"):
        next(learn(count_words(["a\udcff"]), 260))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for `TEXT`."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_bytes(TEXT.encode())
    folder = text.parent / "vocabulary"
    assert main(["vocabulary", str(text), "--size", "900", "--output", str(folder)]) == 0
    return folder


class TestFiles:
    """The files of a learned vocabulary, read by others."""

    def test_tiktoken_makes_the_same_tokens(self, folder: Path) -> None:
        tokens_file, merges_file = (str(folder / name) for name in OPENAI)
        ranks = data_gym_to_mergeable_bpe_ranks(merges_file, tokens_file)
        here, special = Tokenizer.load(folder), {END_OF_TEXT: 899}
        peer = tiktoken.Encoding("learned", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)
        assert here.n_vocab == peer.n_vocab == 900
        for text in (TEXT, STRANGE):
            assert here.encode(text) == peer.encode_ordinary(text)

    def test_hugging_face_makes_the_same_tokens(self, folder: Path) -> None:
        peer = GPT2TokenizerFast.from_pretrained(folder)
        here = Tokenizer.load(folder)
        assert len(peer) == here.n_vocab == 900
        for text in (TEXT, STRANGE, f"a{END_OF_TEXT}b"):
            assert here.encode(text, allow_special=True) == peer.encode(text)

    def test_its_tokens_are_those_that_were_learned(self, folder: Path) -> None:
        learned, here = from_merges(learn(count_words([TEXT]), 899)), Tokenizer.load(folder)
        assert (here.encoder, [*here.ranks]) == (learned.encoder, learned.merges)

    def test_frequent_words_become_tokens(self, folder: Path) -> None:
        here = Tokenizer.load(folder)
        for word in (" return", " the", " tokens"):
            assert len(here.encode(word)) == 1
        assert len(here.encode(TEXT)) < 0.4 * len(TEXT.encode())
