"""The files of a vocabulary: which tokens there are, and which pairs of them join to one.

    encoder.json, vocab.bpe     as OpenAI calls them
    vocab.json, merges.txt      the same two files, as Hugging Face calls them
    tokenizer.json              all of it in one file, as Hugging Face's `tokenizers` writes it

A folder needs one of the three.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .files import read_json, read_text, write_atomically, write_json

LAYOUTS = (("encoder.json", "vocab.bpe"), ("tokenizer.json",), ("vocab.json", "merges.txt"))
ADDED = "added_tokens.json"  # beside vocab.json, where there are tokens that are not in it


class Vocabulary(NamedTuple):
    """What a tokenizer is made from."""

    encoder: dict[str, int]  # the id of each token
    merges: list[str]  # pairs of tokens with a space between them; the first is tried first
    special: tuple[str, ...] = ()  # tokens that stand for no text, such as one for padding, added in fine-tuning


def find_vocabulary(folder: Path, whole: bool = False) -> list[Path]:
    """The files of the vocabulary in a folder; none if there is none.

    Args:
        folder: the folder.
        whole: whether all files of a layout must be there, and not just one of them.
    """
    for layout in LAYOUTS:
        files = [folder / name for name in layout]
        found = [file.exists() for file in files]
        if all(found) or (any(found) and not whole):
            return files
    return []


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary in a folder. Whether it is one that works, `Tokenizer` checks.

    Raises:
        FileNotFoundError: there is none, or only one of two files.
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
    """The tokens in a JSON file, with their ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    tokens = read_json(file)
    if not isinstance(tokens, dict) or not all(type(id) is int for id in tokens.values()):
        raise ValueError(f"{file} must give a whole number for each token")
    return tokens


def read_merges(file: Path) -> list[str]:
    """The merges in a text file, one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text in UTF-8.
    """
    return [line for line in read_text(file).split("\n") if line and not line.startswith("#version")]


def read_tokenizer_json(file: Path) -> Vocabulary:
    """The vocabulary in a `tokenizer.json`.

    Raises:
        ValueError: it describes another kind of tokenizer than GPT-2's, or nothing at all.
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
    """Writes `vocab.json`, `merges.txt` and, if there are tokens that were added, `added_tokens.json`.

    They replace those that were written to the folder before.

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
