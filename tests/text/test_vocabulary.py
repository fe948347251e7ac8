"""The files of a vocabulary in each layout, against those that Hugging Face's libraries write and read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.hub.names import model_folder
from numpy_gpt2.text.vocabulary import (
    OPENAI,
    TWO_FILES,
    Vocabulary,
    check_vocabulary,
    find_vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from numpy_gpt2.tokenizer import Tokenizer

TINY = model_folder("tiny")
TEXT = "Once upon a time, an  œuf said: “It’s 1234!”\n\n<|endoftext|> 漢字 🙂"
SPECIAL = "Hi[PAD é] <|endoftext|>[PAD é][PAD]there"


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """The vocabulary of tiny under Hugging Face's names."""
    shutil.copy(TINY / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(TINY / "vocab.bpe", tmp_path / "merges.txt")
    return tmp_path


@pytest.fixture
def tokenizer_json(hub_folder: Path, tmp_path: Path) -> Path:
    """The same vocabulary with two more tokens, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(write_config(hub_folder))
    theirs.add_tokens(["[PAD é]", "[PAD]"], special_tokens=True)
    theirs.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved" / "tokenizer.json"


def write_config(folder: Path) -> Path:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return folder


@pytest.fixture
def padded(tiny: GPT2) -> Tokenizer:
    """The tokenizer of tiny with two more tokens, which no merge makes."""
    assert tiny.tokenizer
    encoder = {**tiny.tokenizer.encoder, "[PAD é]": 4096, "[PAD]": 4097}
    return Tokenizer(encoder, [*tiny.tokenizer.ranks], ["[PAD é]", "[PAD]"])


def test_the_same_two_files_under_hugging_faces_names(hub_folder: Path, tiny: GPT2) -> None:
    assert tiny.tokenizer
    ours = Tokenizer.load(hub_folder)
    assert (ours.encoder, ours.ranks) == (tiny.tokenizer.encoder, tiny.tokenizer.ranks)


def test_tokenizer_json_as_transformers_writes_it(tokenizer_json: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs = (
        Tokenizer.load(tokenizer_json.parent),
        transformers.AutoTokenizer.from_pretrained(tokenizer_json.parent),
    )
    assert ours.n_vocab == len(theirs) == 4098
    for text in (TEXT, SPECIAL):
        ids = ours.encode(text, allow_special=True)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False) == text


def test_merges_may_be_written_as_lines(tokenizer_json: Path) -> None:
    """So `tokenizers` wrote them before 2024."""
    content = json.loads(tokenizer_json.read_text())
    before = Tokenizer.load(tokenizer_json.parent)
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    tokenizer_json.write_text(json.dumps(content))
    assert Tokenizer.load(tokenizer_json.parent).ranks == before.ranks


@pytest.mark.parametrize("added", [True, False])
def test_transformers_opens_what_is_saved(padded: Tokenizer, tiny: GPT2, tmp_path: Path, added: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = padded if added else tiny.tokenizer
    assert ours
    ours.save(tmp_path)
    again, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, SPECIAL):
        assert ours.encode(text, True) == again.encode(text, True) == theirs.encode(text)


def test_special_tokens_are_text_unless_allowed(padded: Tokenizer) -> None:
    assert 4097 not in padded.encode("[PAD]")
    assert padded.decode(padded.encode("[PAD]")) == "[PAD]"
    assert padded.encode("[PAD]", allow_special=True) == [4097]
    assert padded.decode([4096, 4095]) == "[PAD é]<|endoftext|>"


def with_openais_files(folder: Path, model: str) -> Path:
    for file in ("encoder.json", "vocab.bpe"):
        shutil.copy(TINY.parent / model / file, folder / file)
    return folder


def test_openais_files_beside_the_same_in_hugging_faces_layout(hub_folder: Path, tokenizer_json: Path) -> None:
    """So that transformers, which does not know OpenAI's files, reads the same."""
    assert Tokenizer.load(with_openais_files(hub_folder, "tiny")).n_vocab == 4096
    assert Tokenizer.load(with_openais_files(tokenizer_json.parent, "tiny")).n_vocab == 4098


def test_openais_files_beside_others_that_differ(hub_folder: Path, tokenizer_json: Path) -> None:
    for folder, names in ((hub_folder, "vocab.json and merges.txt"), (tokenizer_json.parent, "tokenizer.json")):
        with pytest.raises(ValueError, match=rf"encoder\.json and vocab\.bpe in .* differ from {names} there"):
            Tokenizer.load(with_openais_files(folder, "gpt2"))


@pytest.mark.parametrize("change", ["an id", "a merge"])
def test_openais_files_that_differ_in_one_place(hub_folder: Path, change: str) -> None:
    encoder = json.loads((TINY / "encoder.json").read_text())
    merges = (TINY / "vocab.bpe").read_text().split("\n")
    if change == "an id":
        encoder["a"], encoder["b"] = encoder["b"], encoder["a"]
    else:
        merges[1], merges[2] = merges[2], merges[1]
    (hub_folder / "encoder.json").write_text(json.dumps(encoder))
    (hub_folder / "vocab.bpe").write_text("\n".join(merges))
    with pytest.raises(ValueError, match="differ from vocab.json and merges.txt"):
        Tokenizer.load(hub_folder)


def test_openais_files_count_while_the_others_are_incomplete(hub_folder: Path) -> None:
    """As where the conversion of a checkpoint was interrupted."""
    (with_openais_files(hub_folder, "tiny") / "merges.txt").unlink()
    assert Tokenizer.load(hub_folder).n_vocab == 4096


def test_a_missing_file_is_named(hub_folder: Path, tmp_path: Path) -> None:
    (hub_folder / "merges.txt").unlink()
    assert find_vocabulary(hub_folder)
    assert not find_vocabulary(hub_folder, whole=True)
    with pytest.raises(FileNotFoundError, match="merges.txt is missing in"):
        Tokenizer.load(hub_folder)
    (hub_folder / "vocab.json").unlink()
    assert not find_vocabulary(hub_folder)
    with pytest.raises(
        FileNotFoundError, match=r"no vocabulary in .*: neither tokenizer\.json nor vocab\.json and mer"
    ):
        Tokenizer.load(hub_folder)


@pytest.mark.parametrize("content", ["[]", "null", '{"a": "b"}', '{"a": 1.0}', '{"a": true}', "{"])
@pytest.mark.parametrize("name", ["vocab.json", "added_tokens.json", "tokenizer.json"])
def test_a_file_with_something_else_is_refused(hub_folder: Path, name: str, content: str) -> None:
    (hub_folder / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        Tokenizer.load(hub_folder)


def test_a_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    encoder = {"a": 0, "<|endoftext|>": 1, "ab": 2, "#version": 3, "[x y]": 4, "word": 5}
    vocabulary = Vocabulary(encoder, ["a b", "# version"], ("<|endoftext|>", "[x y]"), ("word",))
    write_vocabulary(tmp_path, vocabulary)
    assert read_vocabulary(tmp_path) == vocabulary
    assert json.loads((tmp_path / "vocab.json").read_text()) == encoder  # with all ids, so that none is given anew


def test_a_vocabulary_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "added_tokens.json").write_text('{"[x]": 1}')
    write_vocabulary(tmp_path, Vocabulary({"a": 0, "[x]": 1, "<|endoftext|>": 2}, [], ("[x]", "<|endoftext|>")))
    write_vocabulary(tmp_path, vocabulary := Vocabulary({"<|endoftext|>": 0, "b": 1}, [], ("<|endoftext|>",)))
    assert read_vocabulary(tmp_path) == vocabulary
    assert not (tmp_path / "added_tokens.json").exists()


def test_added_tokens_may_be_beside_openais_files(tmp_path: Path) -> None:
    for file in ("encoder.json", "vocab.bpe"):
        shutil.copy(TINY / file, tmp_path / file)
    (tmp_path / "added_tokens.json").write_text('{"[PAD]": 4096}')
    assert Tokenizer.load(tmp_path).encode("[PAD]") == [4096]


@pytest.mark.parametrize(
    ("encoder", "merges", "special", "complaint"),
    [
        ({"a": 0, "b": 1, "ab": 2, "<s>": 3}, ["a b"], ("<s>",), None),
        ({"a": 0, "b": 1, "ab": 2}, ["a b", "a b"], (), "the merge 'a b' is there twice"),
        ({"a": 0, "b": "1"}, [], (), "must give a whole number for each token"),
        ([], [], (), "must give a whole number for each token"),
        ({"a": 0, "b": 2}, [], (), "the ids of the 2 tokens must be the numbers 0 to 1"),
        ({"a": 0, "b": 1, "ab": 2}, ["ab"], (), "merge 1 is 'ab', which is not two tokens"),
        ({"a": 0, "b": 1, "ac": 2}, ["a c"], (), "merges with 'c', a character that stands for no byte"),
        ({"a": 0, "b": 1}, ["a b"], (), "'ab' is missing from the vocabulary"),
        ({"a": 0}, [], (), "'b' is missing from the vocabulary"),
        ({"a": 0, "b": 1}, [], ("<s>",), "'<s>' is missing from the vocabulary"),
        ({"a": 0, "b": 1, "ba": 2}, [], (), "'ba' is made by no merge"),
    ],
    ids=str,
)
def test_tokens_and_merges_must_belong_together(
    encoder: Any, merges: list[str], special: tuple[str, ...], complaint: str | None
) -> None:
    vocabulary = Vocabulary(encoder, merges, special)
    if complaint is None:
        check_vocabulary(vocabulary, alphabet="ab")
    else:
        with pytest.raises(ValueError, match=complaint):
            check_vocabulary(vocabulary, alphabet="ab")


def test_gpt2s_vocabulary_is_saved_byte_for_byte_as_openai_has_it(tmp_path: Path) -> None:
    Tokenizer.gpt2().save(tmp_path)
    for saved, original in zip(TWO_FILES, OPENAI, strict=True):
        assert (tmp_path / saved).read_bytes() == (TINY.parent / "gpt2" / original).read_bytes()
