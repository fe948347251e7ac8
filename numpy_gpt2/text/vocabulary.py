"""The files of a vocabulary: which tokens there are, and which pairs of them merge into one.

    encoder.json, vocab.bpe     OpenAI's names
    vocab.json, merges.txt      the same two files by Hugging Face's names
    tokenizer.json              everything in one file, as Hugging Face's `tokenizers` writes it

A folder needs one of the three.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..machine.files import read_json, read_text, write_atomically, write_json

LAYOUTS = (("encoder.json", "vocab.bpe"), ("tokenizer.json",), ("vocab.json", "merges.txt"))
ADDED = "added_tokens.json"  # beside vocab.json: the tokens that are not in it


class Vocabulary(NamedTuple):
    """What a tokenizer is made from."""

    encoder: dict[str, int]  # the id of each token
    merges: list[str]  # pairs of tokens, separated by a space; earlier pairs merge first
    special: tuple[str, ...] = ()  # tokens added in fine-tuning that stand for no text, such as one for padding


def find_vocabulary(folder: Path, whole: bool = False) -> list[Path]:
    """The files of the vocabulary in a folder; an empty list if there is none.

    Args:
        folder: the folder.
        whole: whether all files of a layout must exist, and not just one of them.
    """
    for layout in LAYOUTS:
        files = [folder / name for name in layout]
        exist = [file.exists() for file in files]
        if all(exist) or (any(exist) and not whole):
            return files
    return []


def read_vocabulary(folder: Path) -> Vocabulary:
    """Reads the vocabulary in a folder. `Tokenizer` checks that its parts belong together.

    Raises:
        FileNotFoundError: there is no vocabulary, or only one of two files.
        ValueError: a file is not what its name says, or describes another kind of tokenizer than GPT-2's.
    """
    files = find_vocabulary(folder)
    if not files:
        raise FileNotFoundError(
            f"there is no vocabulary in {folder}: neither " + " nor ".join(" and ".join(layout) for layout in LAYOUTS)
        )
    if len(files) == 1:
        return read_tokenizer_json(files[0])
    encoder = read_tokens(files[0])
    merges = read_merges(files[1])
    added = folder / ADDED
    if not added.exists():
        return Vocabulary(encoder, merges)
    special = read_tokens(added)
    return Vocabulary({**encoder, **special}, merges, tuple(special))


def read_tokens(file: Path) -> dict[str, int]:
    """Reads the tokens in a JSON file, with their ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    tokens = read_json(file)
    if not isinstance(tokens, dict) or not all(type(id) is int for id in tokens.values()):
        raise ValueError(f"{file} must give a whole number for each token")
    return tokens


def read_merges(file: Path) -> list[str]:
    """Reads the merges in a text file, one per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not text in UTF-8.
    """
    return [line for line in read_text(file).split("\n") if line and not line.startswith("#version")]


def read_tokenizer_json(file: Path) -> Vocabulary:
    """Reads the vocabulary in a `tokenizer.json`.

    Raises:
        ValueError: the file describes another kind of tokenizer than GPT-2's, or no tokenizer.
    """
    content = read_json(file)
    try:
        model, pre_tokenizer = content["model"], content["pre_tokenizer"] or {}
        described = {
            "model.type": (model["type"], "BPE"),
            "model.ignore_merges": (model.get("ignore_merges", False), False),
            "normalizer": ((content.get("normalizer") or {}).get("type"), None),
            "pre_tokenizer.type": (pre_tokenizer.get("type"), "ByteLevel"),
            "pre_tokenizer.add_prefix_space": (pre_tokenizer.get("add_prefix_space"), False),
            "pre_tokenizer.use_regex": (pre_tokenizer.get("use_regex", True), True),
        }
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        special = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        vocabulary = Vocabulary({**model["vocab"], **special}, merges, tuple(special))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} does not describe a tokenizer ({type(error).__name__}: {error})") from None
    for name, (value, expected) in described.items():
        if value != expected:
            raise ValueError(f"{file}: {name} is {value!r}, but GPT-2's is {expected!r}")
    return vocabulary


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Writes `vocab.json`, `merges.txt` and, if there are added tokens, `added_tokens.json`.

    Files of these names in the folder are replaced.

    Raises:
        OSError: a file cannot be written.
    """
    encoder, merges, special = vocabulary
    write_json(folder / "vocab.json", {token: id for token, id in encoder.items() if token not in special})
    text = "\n".join(["#version: 0.2", *merges, ""])
    write_atomically(folder / "merges.txt", lambda file: file.write_bytes(text.encode()))
    if special:
        write_json(folder / ADDED, {token: encoder[token] for token in special})
    else:
        (folder / ADDED).unlink(missing_ok=True)


def check_vocabulary(vocabulary: Vocabulary, alphabet: Iterable[str]) -> None:
    """Checks that the tokens are exactly these: one for each byte, one for each merge, and the special ones.

    So a file that was cut short is noticed. With such a file, the same text would become other tokens.

    Args:
        vocabulary: the vocabulary.
        alphabet: the characters that stand for bytes.

    Raises:
        ValueError: something is missing, or does not belong.
    """
    encoder, merges, special = vocabulary
    alphabet = {*alphabet}
    if not isinstance(encoder, dict) or {*map(type, encoder.values())} != {int}:
        raise ValueError("the vocabulary must give a whole number for each token")
    if sorted(encoder.values()) != [*range(len(encoder))]:
        raise ValueError(f"the ids of the {len(encoder)} tokens must be the numbers 0 to {len(encoder) - 1}")
    for number, line in enumerate(merges, start=1):
        if line.count(" ") != 1:
            raise ValueError(f"merge {number} is {line!r}, which is not two tokens with a space between them")
    if strange := {*"".join(merges)} - {*alphabet, " "}:
        raise ValueError(f"there are merges with {min(strange)!r}, a character that stands for no byte")
    expected = {*alphabet, *(line.replace(" ", "") for line in merges), *special}
    if expected != encoder.keys():
        odd = min(expected ^ encoder.keys())
        raise ValueError(f"{odd!r} is " + ("missing from the vocabulary" if odd in expected else "made by no merge"))
