"""What the tests of vocabulary files share: small tokenizers in each layout, and what transformers makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from numpy_gpt2.text.added_tokens import EXTRA, ROLES
from numpy_gpt2.tokenizer import Tokenizer, byte_characters

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "Ã ©"]
VOCAB = {token: id for id, token in enumerate([*byte_characters(), *(pair.replace(" ", "") for pair in MERGES)])}
END = len(VOCAB)  # the id of <|endoftext|>, which comes last
VOCAB["<|endoftext|>"] = END
N = len(VOCAB)

TEXTS = (
    "",
    "hello world, é and  hellhello",
    "hello<|endoftext|> world<|endoftext|><|endoftext|>",
    " <pad><pad> x <a>b<a> bc <mask>y[é][ é]  [x y] 漢\n",
    "ahello<a>hello wo <|im_start|>hello\n<|im_end|>covid covid-19 <|endof covids|endoftext|>",
)


def added(content: Any, id: int | None = None, **flags: Any) -> dict[str, Any]:
    """The description of an added token, as Hugging Face's files have it."""
    token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {**({} if id is None else {"id": id}), **token, "special": True, **flags}


def two_files(vocab: Any = VOCAB, merges: Any = MERGES, **others: Any) -> dict[str, Any]:
    """A tokenizer as `vocab.json` and `merges.txt`; other files by their names, with _ for the dot."""
    text = "#version: 0.2\n" + "".join(f"{pair}\n" for pair in merges)
    return {"vocab.json": vocab, "merges.txt": text, **{f"{name}.json": content for name, content in others.items()}}


def one_file(
    *listed: Any, changes: Mapping[str, Any] | None = None, vocab: Any = VOCAB, **others: Any
) -> dict[str, Any]:
    """A tokenizer as `tokenizer.json`, with these added tokens, and changes under paths such as `model.type`."""
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*listed] or [added("<|endoftext|>", END)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [pair.split(" ") for pair in MERGES],
        },
    }
    for path, value in (changes or {}).items():
        *outer, last = path.split(".")
        place = content
        for name in outer:
            place = place[name]
        place[last] = value
    return {"tokenizer.json": content, **{f"{name}.json": other for name, other in others.items()}}


def write_files(folder: Path, files: Mapping[str, Any]) -> Path:
    """Writes files, given as text or as what is to be written as JSON, and says that they are those of a GPT-2."""
    folder.mkdir(exist_ok=True)
    for name, content in {"config.json": {"model_type": "gpt2"}, **files}.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def in_transformers(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def roles_in(theirs: Any) -> dict[str, Any]:
    """What the tokens of a tokenizer of transformers are for."""
    return {name: getattr(theirs, name) for name in (*ROLES, EXTRA[0])}


def differences(ours: Tokenizer, theirs: Any, texts: Iterable[str] = TEXTS) -> list[str]:
    """What the two tokenizers make of the same texts and ids, where it is not the same."""
    found = [] if ours.n_vocab == len(theirs) else [f"{ours.n_vocab} tokens, not {len(theirs)}"]
    for text in (*texts, *ours.special, *ours.added):
        for allowed in (True, False):
            ids, expected = ours.encode(text, allowed), theirs.encode(text, split_special_tokens=not allowed)
            if ids != expected:
                found.append(f"{text!r} is {ids}, not {expected}, where special tokens are allowed: {allowed}")
        if ours.decode(ids) != theirs.decode(ids):
            found.append(f"{ids} are {ours.decode(ids)!r}, not {theirs.decode(ids)!r}")
    for id in range(ours.n_ids):
        if ours.decode([id]) != theirs.decode([id]):
            found.append(f"{id} is {ours.decode([id])!r}, not {theirs.decode([id])!r}")
    return found
