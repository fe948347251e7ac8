"""What a user asks for, prompts and options, checked and made into the rows that `generation.generate` lets grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .generation import Row
from .model import check_fits, check_ids
from .params import Array, HParams
from .sampling import check_sampling, check_whole_number, next_token
from .text import Text
from .tokenizer import Batch, Tokenizer, byte_spelling

Prompt: TypeAlias = str | Sequence[int] | Array  # text, or token ids [n_seq]


class Options(NamedTuple):
    """How texts are to be continued; `GPT2.generate` says what each option means."""

    max_new_tokens: int | None = None
    max_length: int | None = None
    temperature: float = 1.0
    top_k: int = 40
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: str | Iterable[str] | None = None
    seed: int | np.random.SeedSequence | None = None
    slide: bool = False
    return_full_text: bool = False

    def sampling(self) -> dict[str, Any]:
        """Those that `next_token` takes."""
        return {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "repetition_penalty")}


def check_options(options: Options) -> Options:
    """Checks the options of generation, and returns them with whole numbers as Python ints and `stop` as a tuple.

    Raises:
        ValueError: one of them is out of its range, or two exclude each other.
    """
    check_sampling(**options.sampling())
    if options.max_new_tokens is not None and options.max_length is not None:
        raise ValueError("give max_new_tokens or max_length, which counts the prompt as well, but not both")
    checked: dict[str, Any] = {"stop": stop_strings(options.stop)}
    for name in ("max_new_tokens", "max_length", "top_k", "seed"):
        value = getattr(options, name)
        if not isinstance(value, (np.random.SeedSequence, type(None))):
            checked[name] = check_whole_number(name, value)
    return options._replace(**checked)


def stop_strings(stop: str | Iterable[str] | None) -> tuple[str, ...]:
    """The stop strings in what may be one, several or none.

    Raises:
        ValueError: one of them is not text, or empty.
    """
    if not isinstance(stop, (str, Iterable, type(None))):
        raise ValueError(f"stop must be text, or a list of texts, not {stop!r}")
    strings = (stop,) if isinstance(stop, str) else () if stop is None else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise ValueError(f"a stop string must be text, and at least one character, not {string!r}")
        byte_spelling(string)  # raises an error if UTF-8 cannot carry it
    return strings


def start_rows(
    prompts: Sequence[Prompt],
    n_each: int,
    options: Options,
    hparams: HParams,
    tokenizer: Tokenizer | None,
    with_log_probabilities: bool = True,
) -> list[Row]:
    """The rows of a batch: n_each for each prompt, which draw their tokens from random streams of their own.

    Row i gets the stream number i of the seed, whatever the other rows are.

    Args:
        prompts: text or token ids.
        n_each: how many rows for each.
        options: as `check_options` returns them.
        hparams, tokenizer: the model's.
        with_log_probabilities: as for `Row`.

    Raises:
        ValueError: a prompt cannot be read, or is too long; or the options are about text, and there is
            no vocabulary.
    """
    stop = stop_strings(options.stop)
    if stop or options.return_full_text:
        require(tokenizer)
    encoded = []
    for number, prompt in enumerate(prompts, start=1):
        try:
            ids = encode_prompt(prompt, hparams, tokenizer, options.slide)
            encoded.append((prompt, ids, count_new_tokens(options, len(ids))))
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}" if len(prompts) > 1 else str(error)) from None
    seed = options.seed if isinstance(options.seed, np.random.SeedSequence) else np.random.SeedSequence(options.seed)
    streams = iter(seed.spawn(len(prompts) * n_each))
    rows = []
    for prompt, ids, max_new_tokens in encoded:
        shown = tokenizer.decode_bytes(ids) if tokenizer and options.return_full_text and len(prompt) else b""
        for _ in range(n_each):
            choose = partial(next_token, rng=np.random.default_rng(next(streams)), **options.sampling())
            text = Text(tokenizer, stop, shown) if tokenizer else None
            end_of_text = tokenizer.end_of_text if tokenizer else None
            rows.append(Row(ids, choose, max_new_tokens, end_of_text, text, with_log_probabilities))
    return rows


def encode_prompt(prompt: Prompt, hparams: HParams, tokenizer: Tokenizer | None, slide: bool) -> list[int]:
    """The ids of a prompt; if it is empty, `<|endoftext|>`, after which the model begins a text of its own.

    Raises:
        ValueError: it is text, and there is no vocabulary; or not ids of this model, or, unless the
            context slides, too many.
    """
    if isinstance(prompt, str):
        prompt = require(tokenizer).encode(prompt)
    empty = isinstance(prompt, Sized) and len(prompt) == 0
    batch = check_ids([tokenizer.end_of_text] if tokenizer and empty else prompt, hparams)
    if len(batch) > 1:
        raise ValueError("a prompt is one row of token ids, and this is several")
    if not slide:
        try:
            check_fits(batch, hparams)
        except ValueError as error:
            raise ValueError(f"{error}; slide (--slide) would read only its last part") from None
    return batch[0].tolist()


def count_new_tokens(options: Options, n_prompt: int) -> int:
    """How many tokens may follow a prompt of n_prompt tokens.

    Raises:
        ValueError: the prompt alone is longer than `max_length`.
    """
    if options.max_length is None:
        return 64 if options.max_new_tokens is None else options.max_new_tokens
    if n_prompt > options.max_length:
        raise ValueError(f"the prompt has {n_prompt} tokens, more than max_length, {options.max_length}")
    return options.max_length - n_prompt


def as_prompts(prompt: Any) -> tuple[list[Any], bool]:
    """The prompts in what may be one (text, or a row of ids) or several; and whether it is several.

    Of a `Batch`, the padding does not count. An empty list is taken for one without prompts, not for a
    prompt without ids.
    """
    if isinstance(prompt, (str, bytes)) or not np.iterable(prompt):
        return [prompt], False
    if isinstance(prompt, Batch):
        return [ids[:length] for ids, length in zip(prompt.ids, prompt.lengths, strict=True)], True
    items = list(prompt)
    return (items, True) if not items or np.iterable(items[0]) else ([items], False)


def require(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer, where text is wanted.

    Raises:
        ValueError: the model has none.
    """
    if tokenizer is None:
        raise ValueError(
            "this model came without a vocabulary (tokenizer.json, or vocab.json and merges.txt) and knows only ids"
        )
    return tokenizer
