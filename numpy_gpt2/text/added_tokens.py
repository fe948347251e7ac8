"""Added tokens: those that no merge makes, and that are found whole in a text, such as `<|endoftext|>`.

Hugging Face's files describe them in several places:

    tokenizer.json            `added_tokens`: all of them
    tokenizer_config.json     `added_tokens_decoder`: all of them; and those that have a role, such as `pad_token`
    added_tokens.json         where there is no `added_tokens_decoder`, as before 2023: those not in vocab.json
    special_tokens_map.json   likewise: those that have a role

They are read as transformers reads them, or refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..machine.files import read_object

ADDED = "added_tokens.json"
CONFIG = "tokenizer_config.json"
ROLES_MAP = "special_tokens_map.json"

# The roles, in the order in which their tokens are added; and the tokens that GPT2Tokenizer gives to some of them.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
GPT2_ROLES = dict.fromkeys(ROLES[:3], "<|endoftext|>")
EXTRA = ("extra_special_tokens", "additional_special_tokens")  # the new and the old name for tokens without a role

# The tokens of the roles that are given and, under the old name of `EXTRA`, which all versions know, those without one.
Roles: TypeAlias = Mapping[str, str | Sequence[str]]


class AddedToken(NamedTuple):
    """An added token, as a file describes it."""

    content: str
    special: bool  # whether it is found only where special tokens are allowed, and not always
    normalized: bool | None  # whether it is looked for after all that are not; None: if it is not special
    id: int | None = None  # if the file gives one


def read_added_tokens(
    folder: Path, listed: Sequence[AddedToken] | None, defaults: Mapping[str, Any]
) -> tuple[list[AddedToken], Roles]:
    """The added tokens of the tokenizer in a folder, in the order in which transformers adds them, and their roles.

    Args:
        folder: the folder.
        listed: those in its `tokenizer.json`, if there is one.
        defaults: the tokens of the roles that no file mentions.

    Raises:
        ValueError: a file is not what its name says, the files contradict each other, or a token is to be found in a
            way that is not supported here.
    """
    config = read_if_there(folder / CONFIG)
    if "added_tokens_decoder" in config:
        roles_map = {}
        described = read_decoder(folder / CONFIG, config["added_tokens_decoder"])
        agree = listed is None or {*listed} == {*described}
    else:
        roles_map = read_if_there(folder / ROLES_MAP)
        described = read_old(folder / ADDED, config, roles_map)
        agree = listed is None or ids_of(described) <= ids_of(listed)
    if not agree:
        raise ValueError(f"the files in {folder} describe different added tokens")
    described = described if listed is None else [*listed]
    if len({token.content for token in described}) < len(described):
        raise ValueError(f"the files in {folder} describe an added token twice")
    roles = read_roles(folder, {**defaults, **config}, roles_map)
    extra = read_extra(folder, config, roles_map)
    tokens = with_special(described, [*roles.values()], extra)
    check_order(tokens, f" in {folder}")
    given: dict[str, str | Sequence[str]] = {role: token.content for role, token in roles.items()}
    if extra:
        given[EXTRA[1]] = [token.content for token in extra]
    return [*{token.content: token for token in tokens}.values()], given


def with_special(
    described: Sequence[AddedToken], roles: Sequence[AddedToken], extra: Sequence[AddedToken]
) -> list[AddedToken]:
    """The tokens that are described, and the others in each way in which they are named.

    A token with a role is special, and so is one without a description that is anywhere named as special.
    """
    names = {token.content for token in described}
    tokens = [*described, *(token for token in (*roles, *extra) if token.content not in names)]
    special = {token.content for token in tokens if token.special} | {token.content for token in roles}
    return [token._replace(special=token.content in special) for token in tokens]


def ids_of(tokens: Iterable[AddedToken]) -> set[tuple[str, int | None]]:
    """The tokens with the ids that a file gives them, and nothing else about them."""
    return {(token.content, token.id) for token in tokens}


def read_if_there(file: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object; an empty one if there is no such file.

    Raises:
        ValueError: the file is not JSON in UTF-8, or holds something else.
    """
    return read_object(file) if file.exists() else {}


def check_tokens(file: Path, tokens: Any) -> dict[str, int]:
    """The tokens with their ids that a file gives.

    Raises:
        ValueError: it gives something else.
    """
    if not isinstance(tokens, dict) or not all(type(id) is int for id in tokens.values()):
        raise ValueError(f"{file} must give a whole number for each token")
    return tokens


def read_token(file: Path, value: Any, id: Any = None, typed: bool = False) -> AddedToken:
    """An added token, given its text, which makes it special, or its description.

    Args:
        file: the file to name in an error message.
        value: the text or the description.
        id: the id that the file gives to the token.
        typed: whether a description must say of itself that it is one, so that transformers takes it for one.

    Raises:
        ValueError: the value is something else, or the token is to be found in a way that is not supported here.
    """
    token = {"content": value, "special": True, "__type": "AddedToken"} if isinstance(value, str) else value
    if not isinstance(token, dict) or (typed and token.get("__type") != "AddedToken"):
        raise ValueError(f"{file}: {value!r} is not an added token")
    content, special, normalized = token.get("content"), token.get("special", False), token.get("normalized")
    kinds = ((content, str), (special, bool), (normalized, bool | None), (id, int | None))
    if not content or not all(isinstance(field, kind) for field, kind in kinds):
        raise ValueError(f"{file}: {value!r} is not an added token")
    for name in ("lstrip", "rstrip", "single_word"):
        if token.get(name, False) is not False:
            raise ValueError(f"{file}: {name} of the added token {content!r} is {token[name]!r}, not False")
    return AddedToken(content, special, normalized, id)


def read_decoder(file: Path, decoder: Any) -> list[AddedToken]:
    """The tokens of an `added_tokens_decoder`, by their ids.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(decoder, dict) or not all(
        id.isdecimal() and len(id) < 10 and isinstance(token, dict) for id, token in decoder.items()
    ):
        raise ValueError(f"{file}: added_tokens_decoder must have an object for each id")
    by_id = sorted((int(id), token) for id, token in decoder.items())
    return [read_token(file, token, id) for id, token in by_id]


def read_old(file: Path, config: dict[str, Any], roles_map: dict[str, Any]) -> list[AddedToken]:
    """The tokens of an `added_tokens.json`, by their ids. Those are special that other files name in certain ways.

    Raises:
        ValueError: the file is not what its name says.
    """
    ids = check_tokens(file, read_if_there(file))
    named = [config.get(role) for role in ROLES if role not in roles_map]
    for name in EXTRA:
        named += config[name] if isinstance(config.get(name), list) else []
    for role in {*ROLES} & roles_map.keys():
        named.append(roles_map[role].get("content") if isinstance(roles_map[role], dict) else roles_map[role])
    special = {token for token in named if isinstance(token, str)}
    by_id = sorted(ids.items(), key=lambda item: item[1])
    return [
        read_token(file, {"content": token, "special": token in special, "normalized": token not in special}, id)
        for token, id in by_id
    ]


def read_roles(folder: Path, config: dict[str, Any], roles_map: dict[str, Any]) -> dict[str, AddedToken]:
    """The token of each role that is given.

    Raises:
        ValueError: what has a role is not a token, or the role is not one of `ROLES`.
    """
    for role, value in {**config, **roles_map}.items():
        if role.endswith("_token") and role not in ROLES and isinstance(value, str | dict):
            raise ValueError(f"the files in {folder} give a token the role {role!r}, which is not known here")
    tokens = {}
    for role in ROLES:
        file = ROLES_MAP if role in roles_map else CONFIG
        value = roles_map[role] if role in roles_map else config.get(role)
        if value not in (None, ""):
            tokens[role] = read_token(folder / file, value, typed=file == CONFIG)
    return tokens


def read_extra(folder: Path, config: dict[str, Any], roles_map: dict[str, Any]) -> list[AddedToken]:
    """The special tokens that have no role.

    Raises:
        ValueError: they are not a list of tokens, or there are two different lists.
    """
    given = [values[name] or [] for values in (config, roles_map) for name in EXTRA if name in values]
    if any(not isinstance(tokens, list) or tokens != given[0] for tokens in given) or roles_map.get(EXTRA[0]):
        raise ValueError(f"the files in {folder} must give one list of extra special tokens, not {given}")
    return [read_token(folder / CONFIG, value, typed=True) for value in (given or [[]])[0]]


def check_order(tokens: Iterable[AddedToken], where: str = "") -> None:
    """Checks that it makes no difference whether all tokens are looked for at once.

    In Hugging Face's library, those that are normalized come later, when the others have been cut out of the text. And
    where special tokens are not allowed, one still hides tokens that overlap it and that are looked for with it.

    Raises:
        ValueError: it makes a difference in a text in which two of the tokens overlap.
    """
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for token in tokens:
        late = not token.special if token.normalized is None else token.normalized
        kinds.setdefault((late, token.special), []).append(token.content)
    for (late, left), (other, right) in itertools.permutations(kinds, 2):
        for first, second in itertools.product(kinds[late, left], kinds[other, right]):
            if late >= other and first != second and overlaps(first, second):
                raise ValueError(f"the added tokens {first!r} and {second!r}{where} overlap, but are of two kinds")


def overlaps(first: str, second: str) -> bool:
    """Whether a text can hold the second token where the first has begun and not yet ended.

    >>> overlaps("<pad>", "ad"), overlaps("<pad", "padded"), overlaps("ad", "<pad>")
    (True, True, False)
    """
    return second in first or any(second.startswith(first[i:]) for i in range(1, len(first)))
