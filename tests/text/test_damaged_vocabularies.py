"""Damaged vocabulary files: what is loaded is the same as in transformers, and all else is refused with a sentence."""

from __future__ import annotations

import copy
import json
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_vocabulary import END, N, added, differences, in_transformers, one_file, two_files, write_files

from numpy_gpt2.tokenizer import Tokenizer

EOT = added("<|endoftext|>", END)
PAD = added("<pad>", N)
SOUND: dict[str, dict[str, Any]] = {
    "as transformers 4 wrote two files": two_files(
        tokenizer_config={
            "added_tokens_decoder": {str(END): added("<|endoftext|>"), str(N): added("<pad>")},
            "additional_special_tokens": ["<pad>"],
            "pad_token": "<pad>",
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": False,
        },
        special_tokens_map={"pad_token": "<pad>", "bos_token": added("<|endoftext|>")},
    ),
    "as transformers wrote before 2023": two_files(
        added_tokens={"<pad>": N, "<a>": N + 1},
        special_tokens_map={"pad_token": "<pad>", "bos_token": added("<|endoftext|>")},
        tokenizer_config={"unk_token": {"__type": "AddedToken", **added("<|endoftext|>")}, "add_bos_token": False},
    ),
    "special tokens by their roles": two_files(
        tokenizer_config={"pad_token": "<pad>", "extra_special_tokens": ["<a>", "<mask>"], "eos_token": "<|endoftext|>"}
    ),
    "as transformers 5 writes it": one_file(EOT, PAD, tokenizer_config={"tokenizer_class": "GPT2Tokenizer"}),
    "all of tokenizer.json": one_file(
        EOT,
        added("<a>", N, special=False, normalized=True),
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>"},
    ),
}
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    N,
    N + 1,
    -1,
    1.5,
    10**10,
    "",
    "a",
    "hell",
    "<a>",
    "<|endoftext|>",
    " ",
    "é",
    "h e",
    "ByteLevel",
    "\ud800",
    [],
    ["a"],
    {},
    {"content": "<a>"},
    added("<a>"),
    added("l", N, special=False),
    {"type": "ByteLevel"},
)


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document, as what holds it and the key; of the places in a large part only some."""
    keys = [*content] if isinstance(content, dict) else [*range(len(content))] if isinstance(content, list) else []
    for key in keys[:2] + keys[-12:] if len(keys) > 20 else keys:
        yield content, key
        yield from places(content[key])


def damage_document(content: Any, rng: random.Random) -> str:
    """The document with one value removed, replaced, moved to another key, or there twice."""
    content = copy.deepcopy(content)
    outer, key = rng.choice([*places(content)] or [({"": content}, "")])
    change = rng.choice(["remove", "replace", "replace", "replace", "rename", "copy"])
    if change == "remove":
        del outer[key]
    elif change == "rename" and isinstance(outer, dict):
        outer[rng.choice(["a", "", "hell", "<pad>", "pad_token", "image_token", str(N), "-1"])] = outer.pop(key)
    elif change == "copy":
        other, place = rng.choice([*places(content)] or [(outer, key)])
        other[place] = copy.deepcopy(outer[key])
    else:
        outer[key] = rng.choice(VALUES)
    return json.dumps(content)


def damage_text(text: str, rng: random.Random) -> str:
    """The text with some characters or lines cut out, written twice, or replaced."""
    if rng.random() < 0.5:
        i, j = sorted(rng.choices(range(len(text) + 1), k=2))
        j = min(j, i + rng.choice([1, 3, 10**9]))
        return text[:i] + rng.choice(["", "", text[i:j] * 2, rng.choice(' \n\r\t#a{}[]",:0é\ud7ff\0')]) + text[j:]
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i : i + 1] = rng.choice(
        [[], [lines[j]], [lines[i], lines[j]], ["h h"], ["a b"], ["\u2028 a"], [""], ["he  ll"]]
    )
    return "\n".join(lines)


def damaged(seed: int) -> dict[str, str]:
    """The files of a sound tokenizer, one of them damaged in one or two places."""
    rng = random.Random(seed)
    sound = SOUND[rng.choice([*SOUND])]
    files = {name: content if isinstance(content, str) else json.dumps(content) for name, content in sound.items()}
    name = rng.choice([*sound])
    for _ in range(rng.choice([1, 1, 2])):
        damage: Callable[[Any, random.Random], str] = damage_text
        content: Any = files[name]
        if name != "merges.txt" and rng.random() < 0.8:
            try:
                damage, content = damage_document, json.loads(content)
            except ValueError:
                break
        files[name] = damage(content, rng)
    return files


def judge(folder: Path, seed: int) -> str:
    """What becomes of a damaged vocabulary; fails if it is neither refused nor the same as in transformers."""
    write_files(folder, damaged(seed))
    try:
        ours = Tokenizer.load(folder, N + 5)
    except (ValueError, OSError):
        return "refused"
    try:
        theirs = in_transformers(folder)
    except Exception as error:  # of any kind; mostly about settings that change no id, such as those of padding
        return f"refused by transformers alone: {error}"
    assert differences(ours, theirs) == []
    return "the same"


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", SOUND)
def test_sound_ones_are_the_same(name: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path, SOUND[name])
    assert differences(Tokenizer.load(folder, N + 5), in_transformers(folder)) == []


@pytest.mark.parametrize("seed", range(120))
def test_damaged_ones_are_refused_or_the_same(seed: int, tmp_path: Path) -> None:
    judge(tmp_path, seed)


@pytest.mark.slow
def test_many_damaged_ones_are_refused_or_the_same(tmp_path: Path) -> None:
    """Slow because of the number: 3000 vocabularies."""
    results = [judge(tmp_path / str(seed), seed) for seed in range(1000, 4000)]
    assert results.count("refused") > 2000
    assert results.count("the same") > 600
    assert results.count("refused") + results.count("the same") > 2900
