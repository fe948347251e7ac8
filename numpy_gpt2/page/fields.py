"""The fields of a request, checked: which there are, what they may be, and what holds where one is not given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar

from .. import sampling
from ..checks import check_whole_number
from ..decoding.options import stop_strings
from .changes import Edit

T = TypeVar("T")

MOST_CHARACTERS = 1_000_000  # of a text
MOST_STOP_STRINGS = 16
MOST_CHANGES = 32
MOST_FACTOR = 1000
MOST_SEED = 2**53 - 1  # the largest whole number of which JavaScript is sure


class Field(NamedTuple):
    """A field of a request."""

    check: Callable[[str, Any], Any]  # takes the name and the value, returns the value; or raises ValueError
    default: Any = ...  # none: the field must be given


def check_text(name: str, value: Any) -> str:
    """Checks a text.

    Raises:
        ValueError: it is not text, or too long.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {json.dumps(value)[:50]}")
    if len(value) > MOST_CHARACTERS:
        raise ValueError(f"{name} has {len(value):,} characters, and the page reads at most {MOST_CHARACTERS:,}")
    return value


def check_seed(name: str, value: Any) -> int | None:
    """Checks a seed, or null.

    Raises:
        ValueError: it is not a whole number, or out of its range.
    """
    return None if value is None else check_whole_number(name, value, at_most=MOST_SEED)


def check_stop(name: str, value: Any) -> tuple[str, ...]:
    """Checks stop strings.

    Raises:
        ValueError: they are not a list of texts, too many, or one is empty.
    """
    if not isinstance(value, list) or len(value) > MOST_STOP_STRINGS:
        raise ValueError(f"{name} must be a list of at most {MOST_STOP_STRINGS} texts")
    return stop_strings(value)


def check_options(name: str, value: Any) -> dict[str, float]:
    """Checks sampling options, and returns the values of all of them.

    Raises:
        ValueError: there is no option of a name, or a value is out of its range.
    """
    if not isinstance(value, dict):
        raise ValueError(f'{name} must be an object with sampling options, such as {{"temperature": 0.8}}')
    if wrong := [option for option, number in value.items() if isinstance(number, bool)]:
        raise ValueError(f"{wrong[0]} must be a number, not true or false")
    try:
        return sampling.check_sampling(**value)
    except TypeError as error:  # an unknown name
        raise ValueError(str(error)) from None


def check_changes(name: str, value: Any) -> tuple[Edit, ...]:
    """Checks the changes of an experiment.

    Raises:
        ValueError: they are not a list of changes, too many, or a field of one is missing, unknown or out of range.
    """
    if not isinstance(value, list) or len(value) > MOST_CHANGES:
        raise ValueError(f"{name} must be a list of at most {MOST_CHANGES} changes")
    return tuple(check_change(each) for each in value)


def check_change(value: Any) -> Edit:
    """Checks one change.

    Raises:
        ValueError: as for `check_changes`.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value.get("how") not in HOW:
        raise ValueError(f"a change is an object with the name of an array, and how: one of {', '.join(HOW)}")
    how = value["how"]
    fields = {
        "name": NAME,
        **HOW[how],
        "head": Field(or_none(whole(0, 10**4))),
        "position": Field(or_none(whole(0, 10**6))),
    }
    if unknown := value.keys() - fields.keys() - {"how"}:
        raise ValueError(f"a change of the kind {how} has no field {min(unknown)[:50]!r}")
    if missing := HOW[how].keys() - value.keys():
        raise ValueError(f"a change of the kind {how} needs the field {min(missing)!r}")
    return Edit(how=how, **{key: field.check(key, value.get(key)) for key, field in fields.items()})


def check_name(name: str, value: Any) -> str:
    """Checks the name of an array of a pass.

    Raises:
        ValueError: it does not look like one.
    """
    if not isinstance(value, str) or not re.fullmatch(r"\w+(/\w+){0,4}", value) or len(value) > 100:
        raise ValueError(f"{name} must be the name of an array, such as h3/attn/weights, not {json.dumps(value)[:50]}")
    return value


def check_number(name: str, value: Any) -> float:
    """Checks a finite number.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MOST_FACTOR:
        raise ValueError(f"{name} must be a number between -{MOST_FACTOR:,} and {MOST_FACTOR:,}")
    return float(value)


def check_head(name: str, value: Any) -> int | str | None:
    """Checks a head: its number, what to make of all heads, or null.

    Raises:
        ValueError: it is something else.
    """
    if value in ("mean", "max"):
        return str(value)
    return or_none(whole(0, 10**4))(name, value)


def check_index(name: str, value: Any) -> list[int]:
    """Checks an index of an array.

    Raises:
        ValueError: it is not a list of whole numbers.
    """
    if not isinstance(value, list) or len(value) > 4:
        raise ValueError(f"{name} must be a list of at most 4 whole numbers")
    return [check_whole_number(name, i) for i in value]


def or_none(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """A check that lets null pass."""
    return lambda name, value: None if value is None else check(name, value)


def whole(at_least: int, at_most: int) -> Callable[[str, Any], int]:
    """A check for a whole number in a range."""
    return partial(check_whole_number, at_least=at_least, at_most=at_most)


TEXT = Field(check_text)
NAME = Field(check_name)
LAYER = Field(whole(0, 10**4))
HEAD = Field(or_none(whole(0, 10**4)), None)
POSITION = Field(whole(0, 10**6))
CHANGES = Field(check_changes, [])
MODEL = Field(or_none(check_text), None)  # the name of the one that is to answer; null for any
HOW = {"zero": {}, "scale": {"factor": Field(check_number)}, "put": {"text": TEXT}}  # kinds of changes: their fields
OPTIONS = Field(check_options, {})
FIELDS: dict[str, dict[str, Field]] = {  # of each kind of request
    "about": {},
    "models": {},
    "load": {"model": Field(check_text), "text": TEXT},
    "tokens": {"text": TEXT, "n_alternatives": Field(whole(0, 50), 5)},
    "suggest": {
        "text": TEXT,
        "n": Field(whole(1, 16), 3),
        "max_new_tokens": Field(whole(1, 1024), 12),
        "seed": Field(check_seed, None),
        "stop": Field(check_stop, []),
        "options": OPTIONS,
    },
    "distribution": {
        "text": TEXT,
        "options": OPTIONS,
        "n": Field(whole(1, 1000), 30),
        "max_new_tokens": Field(whole(1, 1024), 12),
    },
}
LOOKING: dict[str, dict[str, Field]] = {  # of each kind of the view "Look inside", beside `model`
    "look": {"text": TEXT},
    "lines": {"text": TEXT, "layer": LAYER, "changes": CHANGES},
    "array": {
        "text": TEXT,
        "name": NAME,
        "head": Field(check_head, None),
        "changes": CHANGES,
        "n_most": Field(whole(1, 4096), 1024),
    },
    "row": {"text": TEXT, "name": NAME, "head": HEAD, "row": POSITION, "changes": CHANGES},
    "explain": {
        "text": TEXT,
        "name": NAME,
        "index": Field(check_index),
        "changes": CHANGES,
        "n_terms": Field(whole(0, 10_000), 8),
    },
    "heads": {"text": TEXT, "changes": CHANGES, "size": Field(whole(1, 128), 48)},
    "unmasked": {"text": TEXT, "layer": LAYER, "head": Field(whole(0, 10**4)), "changes": CHANGES},
    "lens": {"text": TEXT, "changes": CHANGES},
    "attribution": {
        "text": TEXT,
        "position": POSITION,
        "token": Field(or_none(whole(0, 10**9)), None),
        "changes": CHANGES,
    },
    "experiment": {"text": TEXT, "position": POSITION, "changes": CHANGES, "n": Field(whole(1, 100), 10)},
    "write": {
        "text": TEXT,
        "max_new_tokens": Field(whole(1, 1024), 20),
        "seed": Field(check_seed, 0),
        "options": OPTIONS,
    },
}
FIELDS |= {kind: {**fields, "model": MODEL} for kind, fields in LOOKING.items()}


def check_request(request: Any) -> tuple[str, dict[str, Any]]:
    """The kind of a request, and its fields, each checked or with its default.

    Raises:
        ValueError: there is no such kind, a field is missing or unknown, or has a wrong type or range.
    """
    if not isinstance(request, dict):
        raise ValueError("a request is one JSON object")
    given = dict(request)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ValueError(f"there is no request of the kind {json.dumps(kind)[:50]}: the kinds are {', '.join(FIELDS)}")
    fields = FIELDS[kind]
    if unknown := given.keys() - fields.keys():
        has = f"has the fields {', '.join(fields)}" if fields else "has no fields"
        raise ValueError(f"{kind} has no field {min(unknown)[:50]!r}; a request of this kind {has}")
    if missing := [name for name, field in fields.items() if field.default is ... and name not in given]:
        raise ValueError(f"{kind} needs the field {missing[0]!r}")
    return kind, {name: field.check(name, given.get(name, field.default)) for name, field in fields.items()}


def read_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or holds NaN or infinity, which JSON does not have.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number of JSON")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON in UTF-8: {error}") from None
