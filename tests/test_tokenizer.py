"""The tokenizer against tiktoken and Hugging Face's GPT2Tokenizer, on all kinds of text."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notebook import cells

from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.tokenizer import END_OF_TEXT, Tokenizer

DATA = model_folder("tiny").parent  # the vocabularies that come with the package
GPT2 = Tokenizer.gpt2()
TINY = Tokenizer.load(DATA / "tiny")

TEXTS = {
    "empty": "",
    "prose": "It's the children's tale, isn't it? They'll say we're late; I'd say you've won 1,000,000 times.",
    "apostrophes": "'s'S 'Re can''t x'ye 'll'd'm",
    "indented": "def f(x):\n    if x:\n\t\treturn  x\n\n\n",
    "spaces": "a b  c   d    e" + " " * 100 + "f ",
    "white space": "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x20\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000 x \r\n\r\n",
    "control": "".join(map(chr, range(32))) + "\x7f\x80\x9f\ufeff\u200b\u200d\u2060\0",
    "latin": "Größe, façade, žluťoučký kůň, İstanbul, ﬁne ligature, e\u0301 e\u0301 combined",
    "greek cyrillic": "Ἐν ἀρχῇ ἦν ὁ λόγος. Все счастливые семьи похожи друг на друга.",
    "arabic hebrew": "كان يا ما كان في قديم الزمان ٤٢ بְּרֵאשִׁית",
    "indic thai": "एक समय की बात है १२३ กาลครั้งหนึ่งนานมาแล้ว",
    "east asian": "昔々、あるところに。很久很久以前 옛날 옛적에 ㊿ Ⅷ ½ ²³ 𝟘𝟙",
    "emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 ❤️ 🇫🇷 🙂🙂🙂 🤷🏽‍♀️",
    "private and unassigned": "\ue000\uf8ff\U000f0000\U0010ffff\uffff\ufdd0\u0378",
    "later letters": "a\u0558b \u088f1 \U0003d000漟 \U00012550\U000125502 \U0001e6c0x",
    "one letter": "a" * 1000 + "A" * 1000 + " " + "é" * 500,
    "signs": "!" * 500 + "=" * 100 + "-" * 77 + "\\/" * 50 + "{}[]()<>",
    "digits": "3.14159 2026-11-20 0x1F 1e-5 ١٢٣ " + "9" * 300,
    "long words": " ".join("".join(random.Random(n).choices("etaoinÉжあ漢", k=n)) for n in (20, 40, 41, 200, 2000)),
    "special": f"a{END_OF_TEXT}b <|endoftext| {END_OF_TEXT}{END_OF_TEXT}",
}

# Any string that UTF-8 can encode; the characters that the split pattern names are more frequent than by chance.
texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("'stremvld  \n\t\r\xa0\u3000aAéé01٣.!,漢🙂"),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def tiktoken_gpt2() -> Any:
    return in_tiktoken("gpt2", GPT2)


@pytest.fixture(scope="module")
def tiktoken_tiny() -> Any:
    return in_tiktoken("tiny", TINY)


def in_tiktoken(name: str, ours: Tokenizer) -> Any:
    """tiktoken's encoding with its own pattern for GPT-2, from the same two files."""
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    ranks = data_gym_to_mergeable_bpe_ranks(str(DATA / name / "vocab.bpe"), str(DATA / name / "encoder.json"))
    return tiktoken.Encoding(
        name, pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: ours.end_of_text}
    )


@pytest.fixture(scope="module")
def hugging_face_gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    merges = (DATA / "gpt2" / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    vocab = json.loads((DATA / "gpt2" / "encoder.json").read_text(encoding="utf-8"))
    return transformers.GPT2Tokenizer(vocab=vocab, merges=[tuple(line.split()) for line in merges])


def all_characters() -> str:
    return "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def test_the_vocabulary_is_the_one_that_was_released() -> None:
    hashes = {
        "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    }
    for file, sha256 in hashes.items():
        assert hashlib.sha256((DATA / "gpt2" / file).read_bytes()).hexdigest() == sha256
    assert (GPT2.n_vocab, GPT2.end_of_text) == (50257, 50256)
    assert (TINY.n_vocab, TINY.end_of_text) == (4096, 4095)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
class TestTexts:
    def test_gpt2_as_tiktoken(self, text: str, tiktoken_gpt2: Any) -> None:
        assert GPT2.encode(text) == tiktoken_gpt2.encode_ordinary(text)

    def test_tiny_as_tiktoken(self, text: str, tiktoken_tiny: Any) -> None:
        assert TINY.encode(text) == tiktoken_tiny.encode_ordinary(text)

    def test_special_tokens_as_tiktoken(self, text: str, tiktoken_gpt2: Any) -> None:
        assert GPT2.encode(text, allow_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")

    def test_special_tokens_as_hugging_face(self, text: str, hugging_face_gpt2: Any) -> None:
        assert GPT2.encode(text, allow_special=True) == hugging_face_gpt2.encode(text)

    def test_as_hugging_face(self, text: str, hugging_face_gpt2: Any) -> None:
        assert GPT2.encode(text) == hugging_face_gpt2.encode(text, split_special_tokens=True)

    def test_decode_gives_the_text_back(self, text: str) -> None:
        assert GPT2.decode(GPT2.encode(text)) == text
        assert TINY.decode(TINY.encode(text)) == text


@settings(max_examples=500, deadline=None)
@given(texts)
@example("\U0003e076漟")
def test_any_text_as_tiktoken_and_back(tiktoken_gpt2: Any, text: str) -> None:
    ids = GPT2.encode(text)
    assert ids == tiktoken_gpt2.encode_ordinary(text)
    assert GPT2.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(texts)
def test_any_text_as_hugging_face(hugging_face_gpt2: Any, text: str) -> None:
    assert GPT2.encode(text) == hugging_face_gpt2.encode(text, split_special_tokens=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 50256), max_size=30))
def test_any_ids_decode_as_in_tiktoken(tiktoken_gpt2: Any, ids: list[int]) -> None:
    assert GPT2.decode(ids) == tiktoken_gpt2.decode(ids)
    assert GPT2.decode_bytes(ids) == tiktoken_gpt2.decode_bytes(ids)


def test_many_characters_with_every_kind_of_neighbour_as_tiktoken(tiktoken_gpt2: Any) -> None:
    characters = random.Random(0).sample(all_characters(), 100_000)
    text = "".join(f"a{c}1{c}!{c} {c}{c}" for c in characters)
    assert GPT2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


def test_every_assigned_character_as_hugging_face(hugging_face_gpt2: Any) -> None:
    characters = [c for c in all_characters() if unicodedata.category(c) != "Cn"]
    random.Random(1).shuffle(characters)
    text = "".join(characters)
    assert GPT2.encode(text) == hugging_face_gpt2.encode(text, split_special_tokens=True)


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=10**6))],
    ids=["one letter", "random letters"],
)
def test_a_megabyte_without_a_space_as_tiktoken(text: str, tiktoken_gpt2: Any) -> None:
    assert GPT2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


def test_a_long_text_takes_little_more_memory_than_its_ids() -> None:
    text = "Once upon a time there was a king. " * 10**5
    tracemalloc.start()
    ids = TINY.encode(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    n_ids = sum(len(ids) for _, ids in TINY.encode_pieces(text))
    peak_of_pieces = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert n_ids == len(ids) > 8 * 10**5
    assert peak < 2 * sys.getsizeof(ids) + 2**22
    assert peak_of_pieces < 2**22


def test_pieces_of_a_text_are_the_text_and_hold_its_ids() -> None:
    added = ["two words", " \n"]
    tokenizer = Tokenizer(TINY.encoder | {token: 4096 + i for i, token in enumerate(added)}, [*TINY.ranks], added=added)
    text = f"Once two words, two  words \n\n{END_OF_TEXT} é🙂 \n" * 2000
    for allow_special in (False, True):
        cut = [*tokenizer.encode_pieces(text, allow_special)]
        assert "".join(piece for piece, _ in cut) == text
        assert [id for _, ids in cut for id in ids] == tokenizer.encode(text, allow_special)
        assert tokenizer.decode([id for _, ids in cut for id in ids]) == text
        assert sum(ids == [4096] for _, ids in cut) == 2000


def test_changing_a_result_changes_no_other() -> None:
    GPT2.encode("hello").append(0)
    assert GPT2.decode(GPT2.encode("hello")) == "hello"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d \ude42", "prompt\udcff"], ids=ascii)
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"the text is not UTF-8: it holds (U\+D[8-9A-F]\w\w, half a surrogate pair|the byte 0x[89A-F]\w)",
    ):
        GPT2.encode(text)


@pytest.mark.parametrize("id", [-1, 50257, 10**30])
def test_ids_outside_the_vocabulary_are_refused(id: int) -> None:
    with pytest.raises(ValueError, match=f"token id {id} is outside the vocabulary, which has the ids 0 to 50256"):
        GPT2.decode([15496, id])


def test_half_a_character_decodes_to_a_replacement_character() -> None:
    first, *_ = GPT2.encode("🙂")
    assert GPT2.decode([first]) == "�"


class TestFiles:
    """Vocabulary files that are missing, incomplete, or something else."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for file in ("encoder.json", "vocab.bpe"):
            (tmp_path / file).write_bytes((DATA / "tiny" / file).read_bytes())
        return tmp_path

    def test_a_copy_works(self, folder: Path) -> None:
        assert Tokenizer.load(folder).encode("Once upon a time") == TINY.encode("Once upon a time")
        assert Tokenizer.load(str(folder)).n_vocab == 4096

    def test_other_line_ends_make_no_difference(self, folder: Path) -> None:
        file = folder / "vocab.bpe"
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
        assert Tokenizer.load(folder).encode("Once upon a time") == TINY.encode("Once upon a time")

    @pytest.mark.parametrize("file", ["encoder.json", "vocab.bpe"])
    def test_missing(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        with pytest.raises(FileNotFoundError, match=f"{file} is missing"):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("file", ["encoder.json", "vocab.bpe"])
    @pytest.mark.parametrize("keep", [0, 1, 1000, -1000, -5])
    def test_cut_short(self, folder: Path, file: str, keep: int) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[:keep])
        with pytest.raises(ValueError, match=file):
            Tokenizer.load(folder)

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("encoder.json", b"\xff\xfe"),
            ("encoder.json", b"not json"),
            ("encoder.json", b"[1, 2, 3]"),
            ("encoder.json", b'{"a": "b"}'),
            ("encoder.json", b'{"a": 0, "b": 0}'),
            ("encoder.json", b"{}"),
            ("encoder.json", b"[" * 100_000),
            ("vocab.bpe", b"\xff\xfe"),
            ("vocab.bpe", b"#version: 0.2\na b c\n"),
            ("vocab.bpe", b"#version: 0.2\nab\n"),
            ("vocab.bpe", b"#version: 0.2\nq zzz\n"),
            ("vocab.bpe", "#version: 0.2\n漢 字\n".encode()),
            ("encoder.json", b'{"a": ' + b"9" * 5000 + b"}"),
        ],
    )
    def test_not_a_vocabulary(self, folder: Path, file: str, content: bytes) -> None:
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=file):
            Tokenizer.load(folder)

    def test_vocabulary_and_merges_of_different_models(self, folder: Path) -> None:
        (folder / "vocab.bpe").write_bytes((DATA / "gpt2" / "vocab.bpe").read_bytes())
        with pytest.raises(ValueError, match="missing from the vocabulary"):
            Tokenizer.load(folder)


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), [1.5], ["a"], [None]], ids=repr)
def test_only_a_row_of_ids_is_decoded(ids: Any) -> None:
    with pytest.raises(ValueError, match="token ids must be one row of whole numbers, but one of them is"):
        GPT2.decode(ids)


class TestBatch:
    TEXTS = ("Hello", "Hello tokenizers, and others", "", "née 🙂")

    @pytest.mark.parametrize("truncate", [None, 3, 100])
    def test_against_hugging_face(self, truncate: int | None) -> None:
        transformers = pytest.importorskip("transformers")
        files = {"vocab": str(DATA / "gpt2" / "encoder.json"), "merges": str(DATA / "gpt2" / "vocab.bpe")}
        theirs = transformers.GPT2Tokenizer(**files)
        theirs.pad_token = theirs.eos_token
        expected = theirs(
            list(self.TEXTS), padding=True, truncation=truncate is not None, max_length=truncate, return_tensors="np"
        )
        ours = GPT2.encode_batch(self.TEXTS, truncate=truncate)
        np.testing.assert_array_equal(ours.ids, expected["input_ids"])
        np.testing.assert_array_equal(ours.mask, expected["attention_mask"])
        np.testing.assert_array_equal(ours.lengths, expected["attention_mask"].sum(axis=1))

    def test_padding(self) -> None:
        batch = GPT2.encode_batch(["Hello", "Hello tokenizers"], pad=7, truncate=2)
        assert batch.ids.tolist() == [[15496, 7], [15496, 11241]]
        assert batch.lengths.tolist() == [1, 2]
        assert batch.mask.tolist() == [[True, False], [True, True]]

    def test_special_tokens(self) -> None:
        texts = ["a<|endoftext|>"]
        assert GPT2.encode_batch(texts, allow_special=True).ids.tolist() == [[64, 50256]]
        assert GPT2.encode_batch(texts).lengths.tolist() == [8]

    @pytest.mark.parametrize("texts", [[], [""], ["", ""]])
    def test_nothing(self, texts: list[str]) -> None:
        batch = GPT2.encode_batch(texts)
        assert batch.ids.shape == batch.mask.shape == (len(texts), 0)
        assert batch.lengths.tolist() == [0] * len(texts)

    @pytest.mark.parametrize(
        ("texts", "options", "complaint"),
        [
            ("one text", {}, "takes a list of texts, and this is one text"),
            (["a"], {"truncate": -1}, "truncate must be a whole number, 0 or more, not -1"),
            (["a"], {"pad": 50257}, "pad must be an id of the vocabulary, 0 to 50256, not 50257"),
            (["a"], {"pad": -1}, "pad must be an id"),
            (["a"], {"pad": 1.5}, "pad must be an id"),
            (["a"], {"truncate": 1.5}, "truncate must be a whole number"),
            (["a\ud800"], {}, "the text is not UTF-8"),
        ],
        ids=repr,
    )
    def test_bad_arguments_are_refused(self, texts: Any, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            GPT2.encode_batch(texts, **options)


def test_a_tokenizer_shows_how_much_it_holds() -> None:
    tokenizer = Tokenizer.gpt2()
    assert len(tokenizer) == 50257
    assert repr(tokenizer) == "<Tokenizer: tokens: 50257, merges: 50000, special tokens: 1, added tokens: 0>"
    assert cells(tokenizer)[:2] == [["tokens", "50257"], ["merges", "50000"]]
