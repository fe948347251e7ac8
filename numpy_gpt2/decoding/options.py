"""The options of generation, as they come from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import checks, sampling, tokenizer
from ..params import HParams, Params
from .assistant import AssistantModel
from .other_names import check_other_names


class Options(NamedTuple):
    """How texts are to be continued, as `check_options` returns it; `GPT2.generate` says what each option means."""

    max_new_tokens: int | None
    max_length: int | None
    stop: tuple[str, ...]
    seed: int | np.random.SeedSequence | None
    slide: bool
    return_full_text: bool
    prompt_lookup_num_tokens: int | None
    assistant_model: AssistantModel | None
    sampling: Mapping[str, Any]  # a value for each of `sampling.OPTIONS`, by name

    @property
    def drafts(self) -> bool:
        """Whether tokens are drafted."""
        return self.prompt_lookup_num_tokens is not None or self.assistant_model is not None

    def count_new_tokens(self, n_prompt: int) -> int:
        """The most tokens that may follow a prompt of n_prompt tokens.

        Raises:
            ValueError: the prompt alone is longer than `max_length`.
        """
        if self.max_length is None:
            return 64 if self.max_new_tokens is None else self.max_new_tokens
        if n_prompt > self.max_length:
            raise ValueError(f"the prompt has {n_prompt} tokens, more than max_length, {self.max_length}")
        return self.max_length - n_prompt


def check_options(
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    stop: str | Iterable[str] | None = None,
    seed: int | np.random.SeedSequence | None = None,
    slide: bool = False,
    return_full_text: bool = False,
    prompt_lookup_num_tokens: int | None = None,
    assistant_model: AssistantModel | None = None,
    **others: Any,
) -> Options:
    """Checks the options; the others are sampling options, with their defaults where they are not given.

    Raises:
        TypeError: there is no option of this name.
        ValueError: an option is out of its range, or two options exclude each other.
    """
    check_other_names(others)
    sampling.check_names(others, Options._fields[:-1])
    if max_new_tokens is not None and max_length is not None:
        raise ValueError("give max_new_tokens or max_length, which counts the prompt as well, but not both")
    if prompt_lookup_num_tokens is not None and assistant_model is not None:
        raise ValueError("give prompt_lookup_num_tokens or assistant_model, but not both: a draft comes from one place")
    if assistant_model is not None and not is_model(assistant_model):
        found = type(assistant_model).__name__
        raise ValueError(f"assistant_model must be a model, such as load() returns, not of type {found}")
    return Options(
        max_new_tokens if max_new_tokens is None else checks.check_whole_number("max_new_tokens", max_new_tokens),
        max_length if max_length is None else checks.check_whole_number("max_length", max_length),
        stop_strings(stop),
        seed if isinstance(seed, (np.random.SeedSequence, type(None))) else checks.check_whole_number("seed", seed),
        slide,
        return_full_text,
        prompt_lookup_num_tokens
        if prompt_lookup_num_tokens is None
        else checks.check_whole_number("prompt_lookup_num_tokens", prompt_lookup_num_tokens, at_least=1),
        assistant_model,
        sampling.check_sampling(**others),
    )


def is_model(value: Any) -> bool:
    """Whether a value has what an `AssistantModel` has."""
    return isinstance(getattr(value, "params", None), Params) and isinstance(getattr(value, "hparams", None), HParams)


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
