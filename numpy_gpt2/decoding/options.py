"""The options of generation, as they come from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import checks, sampling, tokenizer


class Options(NamedTuple):
    """How texts are to be continued; `GPT2.generate` says what each option means."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    stop: str | Iterable[str] | None = None
    seed: int | np.random.SeedSequence | None = None
    slide: bool = False
    return_full_text: bool = False
    sampling: Mapping[str, Any] = {}  # options of `sampling.OPTIONS`, by name

    @classmethod
    def of(cls, method: str, /, **given: Any) -> Options:
        """The options in the keyword arguments of a method.

        Raises:
            TypeError: an argument is neither one of these options nor a sampling option.
        """
        known = {*cls._fields} - {"sampling"}
        chosen = {name: value for name, value in given.items() if name not in known}
        if unknown := chosen.keys() - sampling.NAMES:
            import difflib  # not needed, and so not imported, when nothing is wrong

            close = difflib.get_close_matches(min(unknown), known | sampling.NAMES, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{method}() got an unexpected keyword argument {min(unknown)!r}{hint}")
        return cls(**{name: given[name] for name in known & given.keys()}, sampling=chosen)


def check_options(options: Options) -> Options:
    """Checks the options, and returns them with Python's own numbers, all sampling options, and `stop` as a tuple.

    Raises:
        ValueError: an option is out of its range, or two options exclude each other.
    """
    if options.max_new_tokens is not None and options.max_length is not None:
        raise ValueError("give max_new_tokens or max_length, which counts the prompt as well, but not both")
    checked: dict[str, Any] = {
        "sampling": sampling.check_sampling(**options.sampling),
        "stop": stop_strings(options.stop),
    }
    for name in ("max_new_tokens", "max_length", "seed"):
        value = getattr(options, name)
        if not isinstance(value, (np.random.SeedSequence, type(None))):
            checked[name] = checks.check_whole_number(name, value)
    return options._replace(**checked)


def stop_strings(stop: str | Iterable[str] | None) -> tuple[str, ...]:
    """The stop strings, given one, several or none.

    Raises:
        ValueError: one of them is empty, or not text.
    """
    if not isinstance(stop, (str, Iterable, type(None))):
        raise ValueError(f"stop must be text, or a list of texts, not {stop!r}")
    strings = (stop,) if isinstance(stop, str) else () if stop is None else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise ValueError(f"a stop string must be text, and at least one character, not {string!r}")
        tokenizer.byte_spelling(string)  # raises an error if UTF-8 cannot encode it
    return strings


def count_new_tokens(options: Options, n_prompt: int) -> int:
    """The most tokens that may follow a prompt of n_prompt tokens.

    Raises:
        ValueError: the prompt alone is longer than `max_length`.
    """
    if options.max_length is None:
        return 64 if options.max_new_tokens is None else options.max_new_tokens
    if n_prompt > options.max_length:
        raise ValueError(f"the prompt has {n_prompt} tokens, more than max_length, {options.max_length}")
    return options.max_length - n_prompt
