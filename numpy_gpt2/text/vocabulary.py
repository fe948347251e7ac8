"""The files of a vocabulary: which tokens there are, and which pairs of them merge into one.

    tokenizer.json              everything in one file, as Hugging Face's `tokenizers` writes it
    vocab.json, merges.txt      two files, by Hugging Face's names
    encoder.json, vocab.bpe     the same two files by OpenAI's names

A folder needs one of the three; the first that is whole is read, as in transformers. The tokens that no merge makes are
described beside them, as `added_tokens` says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ..machine.files import read_json, read_object, read_text, write_json, write_text
from .added_tokens import (
    ADDED,
    CONFIG,
    EXTRA,
    GPT2_ROLES,
    ROLES,
    AddedToken,
    Roles,
    check_order,
    check_tokens,
    read_added_tokens,
    read_if_there,
    read_token,
)

ONE_FILE = ("tokenizer.json",)
TWO_FILES = ("vocab.json", "merges.txt")
OPENAI = ("encoder.json", "vocab.bpe")
LAYOUTS = (ONE_FILE, TWO_FILES, OPENAI)

# The settings that change which ids a text has or which text ids have, each with the values that mean GPT-2. Absent or
# null is None. What else the files say has no effect on a tokenizer of bytes, or none in transformers.
BACKENDS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that go by `tokenizer.json` alone
CONFIG_SETTINGS: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": (None, "GPT2Tokenizer", "GPT2TokenizerFast", *BACKENDS),
    **dict.fromkeys(("add_prefix_space", "add_bos_token", "add_eos_token", "split_special_tokens"), (None, False)),
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": (None, False),
    **dict.fromkeys(("auto_map", "fast_tokenizer_files", "init_inputs", "vocab", "merges"), (None,)),
}
TOKENIZER_SETTINGS: dict[str, tuple[Any, ...]] = {
    "version": ("1.0",),
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (None, True),
    "post_processor.type": (None, "ByteLevel", "TemplateProcessing"),
    "post_processor.single": (None, [{"Sequence": {"id": "A", "type_id": 0}}]),  # the text with nothing around it
    "decoder.type": ("ByteLevel",),
    "model.type": ("BPE",),
    "model.dropout": (None, 0.0),
    "model.continuing_subword_prefix": (None, ""),
    "model.end_of_word_suffix": (None, ""),
    "model.ignore_merges": (None, False),
}


class Vocabulary(NamedTuple):
    """What a tokenizer is made from."""

    encoder: dict[str, int]  # the id of each token
    merges: list[str]  # pairs of tokens, separated by a space; earlier pairs merge first
    special: tuple[str, ...] = ()  # tokens that no merge makes, and that a text holds only where that is allowed
    added: tuple[str, ...] = ()  # tokens that no merge makes, and that any text may hold
    roles: Roles = MappingProxyType({})  # what some of them are for, in Hugging Face's library


def find_vocabulary(folder: Path, whole: bool = False) -> list[Path]:
    """The files of the vocabulary in a folder, in the first layout of which all files are there.

    Args:
        folder: the folder.
        whole: False for a layout of which only a part is there, if no other is whole.

    Returns:
        The files; an empty list if there is no vocabulary.
    """
    layouts = [[folder / name for name in layout] for layout in LAYOUTS]
    found = [files for files in layouts if all(file.exists() for file in files)]
    if not whole:
        found += [files for files in layouts if any(file.exists() for file in files)]
    return found[0] if found else []


def read_vocabulary(folder: Path) -> Vocabulary:
    """Reads the vocabulary in a folder. `Tokenizer` checks that its parts belong together.

    Raises:
        FileNotFoundError: there is no vocabulary, or only one of two files.
        ValueError: a file is not what its name says, or describes another kind of tokenizer than GPT-2's, or two files
            contradict each other.
    """
    files = find_vocabulary(folder)
    if not files:
        raise FileNotFoundError(
            f"there is no vocabulary in {folder}: neither " + " nor ".join(" and ".join(layout) for layout in LAYOUTS)
        )
    encoder, merges, listed, defaults = read_files(folder, files)
    tokens, roles = read_added_tokens(folder, listed, defaults)
    numbered = number_tokens(folder, encoder, tokens)
    check_openai(folder, files, numbered, merges)
    return Vocabulary(
        numbered,
        merges,
        special=tuple(token.content for token in tokens if token.special),
        added=tuple(token.content for token in tokens if not token.special),
        roles=roles,
    )


def read_files(
    folder: Path, files: Sequence[Path]
) -> tuple[dict[str, int], list[str], list[AddedToken] | None, Mapping[str, Any]]:
    """Reads the files of one layout.

    Returns:
        The vocabulary; the merges; the added tokens, if the files list them; and the tokens of the roles that no file
        mentions.

    Raises:
        FileNotFoundError: one of two files is missing.
        ValueError: a file is not what its name says, or describes another kind of tokenizer than GPT-2's.
    """
    backend = uses_backend(folder)
    if len(files) == 1:
        content = read_object(files[0])
        check_settings(files[0], content, TOKENIZER_SETTINGS)
        defaults = {"pad_token": look_up(content, "padding.pad_token")} if backend else GPT2_ROLES
        return *read_tokenizer_json(files[0], content), defaults
    if backend:
        raise ValueError(f"{folder / CONFIG}: a tokenizer_class of {' or '.join(BACKENDS)} needs a {ONE_FILE[0]}")
    return read_tokens(files[0]), read_merges(files[1]), None, GPT2_ROLES


def check_openai(folder: Path, files: Sequence[Path], encoder: Mapping[str, int], merges: Sequence[str]) -> None:
    """Checks that OpenAI's files, if they are beside those that were read, say the same.

    Raises:
        ValueError: they do not, and it is not known which of them belong to the model.
    """
    tokens_file, merges_file = others = [folder / name for name in OPENAI]
    if tokens_file in files or not (tokens_file.exists() and merges_file.exists()):
        return
    if [file.read_bytes() for file in others] == [file.read_bytes() for file in files]:  # as after a conversion
        return
    if not read_tokens(tokens_file).items() <= encoder.items() or read_merges(merges_file) != merges:
        raise ValueError(
            f"{' and '.join(OPENAI)} in {folder} differ from {' and '.join(file.name for file in files)} there: "
            "remove those that do not belong to the model"
        )


def uses_backend(folder: Path) -> bool:
    """Whether transformers would read all of `tokenizer.json`, and not only what GPT2Tokenizer needs.

    Raises:
        ValueError: `tokenizer_config.json` is not what its name says, or describes another kind of tokenizer.
    """
    config = read_if_there(folder / CONFIG)
    if config.get("tokenizer_class") is None:
        config["tokenizer_class"] = read_if_there(folder / "config.json").get("tokenizer_class")
    check_settings(folder / CONFIG, config, CONFIG_SETTINGS)
    return config["tokenizer_class"] in BACKENDS


def check_settings(file: Path, content: Mapping[str, Any], settings: Mapping[str, tuple[Any, ...]]) -> None:
    """Checks that each setting in a file has one of the values that mean GPT-2.

    Raises:
        ValueError: a setting has another value.
    """
    for path, accepted in settings.items():
        value = look_up(content, path)
        if not any(value == other and type(value) is type(other) for other in accepted):  # 0 is not False
            known = ", ".join(map(repr, accepted))
            raise ValueError(f"{file}: {path} is {value!r}, which is not supported here, only {known}")


def look_up(content: Any, path: str) -> Any:
    """The value under a path such as `model.type`; None if there is none."""
    for name in path.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def number_tokens(folder: Path, encoder: Mapping[str, int], tokens: Iterable[AddedToken]) -> dict[str, int]:
    """The vocabulary together with the added tokens that are not in it, which get the next ids, as in transformers.

    Raises:
        ValueError: a file gives another id to an added token.
    """
    numbered = dict(encoder)
    for token in tokens:
        id = numbered.setdefault(token.content, len(numbered))
        if token.id not in (None, id):
            raise ValueError(
                f"the files in {folder} give the added token {token.content!r} the id {token.id}, but transformers "
                f"gives it the id {id}: write the token into the vocabulary under the right id"
            )
    return numbered


def read_tokens(file: Path) -> dict[str, int]:
    """Reads the tokens in a JSON file, with their ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    return check_tokens(file, read_json(file))


def read_merges(file: Path) -> list[str]:
    """Reads the merges in a text file, one per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not text in UTF-8.
    """
    lines = read_text(file, newline="").removesuffix("\n").split("\n")  # a "\r" alone ends no line in transformers
    return [line.removesuffix("\r") for line in lines if not line.startswith("#version")]


def read_tokenizer_json(file: Path, content: dict[str, Any]) -> tuple[dict[str, int], list[str], list[AddedToken]]:
    """The vocabulary, the merges and the added tokens that a `tokenizer.json` describes.

    Raises:
        ValueError: it describes something else.
    """
    encoder = check_tokens(file, look_up(content, "model.vocab"))
    try:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in content["model"]["merges"]]
        merges = [" ".join((left, right)) for left, right in pairs]
        listed = [(token, token["id"]) for token in content["added_tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} does not describe a tokenizer ({type(error).__name__}: {error})") from None
    return encoder, merges, [read_token(file, token, id) for token, id in listed]


def write_vocabulary(folder: Path, vocabulary: Vocabulary, model_max_length: int | None = None) -> None:
    """Writes `vocab.json`, `merges.txt` and `tokenizer_config.json`.

    Files of these names in the folder are replaced.

    Args:
        folder: the folder, which must exist.
        vocabulary: what to write. All tokens are in `vocab.json`, so that transformers gives no new id to any.
        model_max_length: the most tokens that the model can see, for transformers to warn of longer texts.

    Raises:
        OSError: a file cannot be written.
    """
    encoder, merges, special, added, roles = vocabulary
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    described = {
        str(encoder[token]): {
            "content": token,
            "special": token in special,
            "normalized": token not in special,
            **flags,
        }
        for token in sorted({*special, *added}, key=encoder.__getitem__)
    }
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        **dict.fromkeys(GPT2_ROLES),  # null, where a role is not given: else transformers gives it
        **roles,
        **({"model_max_length": model_max_length} if model_max_length else {}),
        "added_tokens_decoder": described,
    }
    tokens_file, merges_file = (folder / name for name in TWO_FILES)
    texts = {tokens_file: json.dumps(encoder), merges_file: "\n".join(["#version: 0.2", *merges, ""])}
    for file, text in texts.items():  # byte for byte as OpenAI's files
        write_text(file, text)
    write_json(folder / CONFIG, config, indent=2)
    (folder / ADDED).unlink(missing_ok=True)


def check_vocabulary(vocabulary: Vocabulary, alphabet: Iterable[str]) -> None:
    """Checks that the tokens are exactly these: one for each byte, one for each merge, and the added ones.

    So a file that was cut short is noticed. With such a file, the same text would become other tokens.

    Args:
        vocabulary: the vocabulary.
        alphabet: the characters that stand for bytes.

    Raises:
        ValueError: something is missing, or does not belong.
    """
    encoder, merges, special, added, _ = vocabulary
    alphabet = {*alphabet}
    if not isinstance(encoder, dict) or {*map(type, encoder.values())} != {int}:
        raise ValueError("the vocabulary must give a whole number for each token")
    if sorted(encoder.values()) != [*range(len(encoder))]:
        raise ValueError(f"the ids of the {len(encoder)} tokens must be the numbers 0 to {len(encoder) - 1}")
    check_merges(merges, alphabet)
    check_added_tokens(vocabulary)
    expected = {*alphabet, *(line.replace(" ", "") for line in merges), *special, *added}
    if expected != encoder.keys():
        odd = min(expected ^ encoder.keys())
        raise ValueError(f"{odd!r} is " + ("missing from the vocabulary" if odd in expected else "made by no merge"))


def check_merges(merges: Sequence[str], alphabet: set[str]) -> None:
    """Checks that each of the merges is two tokens of these characters, and that none is there twice.

    Raises:
        ValueError: one of them is something else, or is there twice.
    """
    for number, line in enumerate(merges, start=1):
        if line.count(" ") != 1 or line != line.strip(" "):
            raise ValueError(f"merge {number} is {line!r}, which is not two tokens with a space between them")
    if len({*merges}) < len(merges):
        raise ValueError(f"the merge {Counter(merges).most_common(1)[0][0]!r} is there twice")
    if strange := {*"".join(merges)} - {*alphabet, " "}:
        raise ValueError(f"there are merges with {min(strange)!r}, a character that stands for no byte")


def check_added_tokens(vocabulary: Vocabulary) -> None:
    """Checks that transformers finds the added tokens of a saved vocabulary as `Tokenizer` does, and knows their roles.

    Raises:
        ValueError: two of the tokens overlap, or a role is not known or not that of a special token.
    """
    special = [AddedToken(token, special=True, normalized=False) for token in vocabulary.special]
    check_order(special + [AddedToken(token, special=False, normalized=True) for token in vocabulary.added])
    for role, value in vocabulary.roles.items():
        tokens = [value] if role in ROLES else value
        if role not in (*ROLES, EXTRA[1]) or not isinstance(tokens, Sequence) or isinstance(tokens, str):
            raise ValueError(f"the role {role!r} of {value!r} is not known here")
        known = vocabulary.special if role in ROLES else (*vocabulary.special, *vocabulary.added)
        if strange := [token for token in tokens if token not in known]:
            raise ValueError(f"{strange[0]!r}, which has the role {role!r}, is not one of the special tokens")
