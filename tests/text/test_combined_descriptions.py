"""Added tokens described in several files at random: as in transformers, or refused, and the same when saved."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from small_vocabulary import (
    END,
    VOCAB,
    N,
    added,
    differences,
    in_transformers,
    one_file,
    roles_in,
    two_files,
    write_files,
)

from numpy_gpt2.text.added_tokens import EXTRA, ROLES
from numpy_gpt2.tokenizer import Tokenizer

# Tokens that overlap, that are in the vocabulary already, and that have characters that stand for bytes.
POOL = [
    "<pad>",
    "<a>",
    "<a>b",
    "b<",
    "text",
    "end",
    "hell",
    "l",
    "é",
    "[é]",
    "<|endoftext|>",
    "<|end",
    "o<|",
    " x",
    "x",
]
POOL += ["\n", "\n\n", "Ġ", "hello world"]


def some_tokens(rng: random.Random) -> list[dict[str, Any]]:
    """Descriptions of a few tokens, nearly always with the ids that transformers gives them."""
    tokens: list[dict[str, Any]] = []
    for content in rng.sample(POOL, rng.choice([0, 1, 2, 2, 3])):
        new = sum(token["content"] not in VOCAB for token in tokens)
        id = VOCAB.get(content, N + new + (rng.random() < 0.03))
        tokens.append(added(content, id, special=rng.random() < 0.6, normalized=rng.random() < 0.4))
    return tokens


def some_value(rng: random.Random) -> Any:
    """A token as text, or described, with some of its properties."""
    content = rng.choice(POOL)
    if rng.random() < 0.6:
        return content
    properties = {"lstrip": False, "special": rng.random() < 0.6, "normalized": rng.random() < 0.5}
    kept = {name: value for name, value in properties.items() if rng.random() < 0.7}
    return {"__type": "AddedToken", "content": content, **kept}


def some_names(rng: random.Random) -> dict[str, Any]:
    """Tokens with some of the roles, and perhaps some without a role."""
    names = {role: rng.choice([some_value(rng), some_value(rng), None]) for role in ROLES if rng.random() < 0.2}
    if rng.random() < 0.2:
        names[rng.choice(EXTRA)] = [some_value(rng) for _ in range(rng.randrange(3))]
    return names


def some_files(rng: random.Random) -> dict[str, Any]:
    """A tokenizer in one of the layouts, with files that describe its added tokens."""
    tokens = some_tokens(rng)
    config = some_names(rng)
    if rng.random() < 0.4:
        by_id = {str(token["id"]): token for token in rng.choice([tokens, tokens, some_tokens(rng)])}
        config["added_tokens_decoder"] = by_id
    others: dict[str, Any] = {"tokenizer_config": config}
    if rng.random() < 0.3:
        others["added_tokens"] = {token["content"]: token["id"] for token in tokens}
    if rng.random() < 0.3:
        others["special_tokens_map"] = some_names(rng)
    if rng.random() < 0.5:
        return two_files(**others)
    config |= rng.choice([{}, {"tokenizer_class": "PreTrainedTokenizerFast"}])
    end = [] if any(token["id"] == END for token in tokens) else [added("<|endoftext|>", END)]
    return one_file(*end, *sorted(tokens, key=lambda token: token["id"]), **others)


def judge(folder: Path, seed: int) -> str:
    """What becomes of a tokenizer; fails if it is neither refused nor the same as in transformers, loaded and saved."""
    rng = random.Random(seed)
    write_files(folder, some_files(rng))
    try:
        ours = Tokenizer.load(folder, N + 9)
    except ValueError:
        return "refused"
    texts = ["".join(rng.choices([*POOL, "h", "e", " ", "ello"], k=rng.randrange(1, 12))) for _ in range(9)]
    theirs = in_transformers(folder)
    assert differences(ours, theirs, texts) == []
    saved = write_files(folder / "saved", {})
    ours.save(saved)
    again = Tokenizer.load(saved)
    assert (again.encoder, again.special, again.added, again.roles) == (
        ours.encoder,
        ours.special,
        ours.added,
        ours.roles,
    )
    theirs_again = in_transformers(saved)
    assert differences(ours, theirs_again, texts) == []
    assert roles_in(theirs_again) == roles_in(theirs)
    return "the same"


@pytest.mark.parametrize("seed", range(60))
def test_described_in_several_files(seed: int, tmp_path: Path) -> None:
    judge(tmp_path, seed)


@pytest.mark.slow
def test_described_in_several_files_many_times(tmp_path: Path) -> None:
    """Slow because of the number: 3000 tokenizers."""
    results = [judge(tmp_path / str(seed), seed) for seed in range(1000, 4000)]
    assert results.count("the same") > 1000
