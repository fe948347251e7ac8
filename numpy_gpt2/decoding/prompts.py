"""Prompts from outside, checked and made into the rows that `generation.generate_batch` lets grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from .. import checks, sampling
from ..params import Array, HParams
from ..text.padding import Batch
from ..text.special_ids import SpecialIds
from ..tokenizer import Tokenizer
from .assistant import Assistant, check_assistant
from .detokenizer import Detokenizer
from .half_words import HalfWord
from .lookup import Lookup
from .options import Options
from .row import Drafter, Row

Prompt: TypeAlias = str | Sequence[int] | Array  # text, or token ids [n_seq]


def start_rows(
    prompts: Sequence[Prompt],
    n_each: int,
    options: Options,
    hparams: HParams,
    tokenizer: Tokenizer | None,
    special_ids: SpecialIds = SpecialIds(),  # noqa: B008
    with_log_probabilities: bool = True,
    half_word: HalfWord | None = None,
) -> list[Row]:
    """The rows of a batch: n_each for each prompt.

    Row i draws its tokens from random stream i of the seed, whatever the other rows are.

    Args:
        prompts: text or token ids.
        n_each: the number of rows for each prompt.
        options: how to continue the prompts.
        hparams, tokenizer, special_ids: those of the model.
        with_log_probabilities: as for `Row`.
        half_word: what was taken back from the end of each prompt, which the rows write again; their texts begin
            after it.

    Raises:
        ValueError: a prompt cannot be read or is too long, the options are about text and there is no vocabulary,
            or the assistant has another vocabulary.
    """
    if options.stop:
        require(tokenizer, "a stop string is text")
    if options.assistant_model:
        check_assistant(options.assistant_model, hparams, tokenizer)
    encoded = []
    for number, prompt in enumerate(prompts, start=1):
        try:
            ids = encode_prompt(prompt, hparams, tokenizer, options.slide, special_ids.bos_token_id)
            encoded.append((prompt, ids, options.count_new_tokens(len(ids))))
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}" if len(prompts) > 1 else str(error)) from None
    seed = options.seed if isinstance(options.seed, np.random.SeedSequence) else np.random.SeedSequence(options.seed)
    streams = iter(seed.spawn(len(prompts) * n_each))
    rows = []
    for prompt, ids, max_new_tokens in encoded:
        with_prompt = options.return_full_text and len(prompt) > 0
        before = tokenizer.decode_bytes(ids) if tokenizer and with_prompt else b""
        for _ in range(n_each):
            rng = np.random.default_rng(next(streams))
            choose, drafter = choose_and_draft(options, hparams, rng)
            choose = half_word.completing(choose, len(ids)) if half_word else choose
            n_given = half_word.n_bytes if half_word else 0
            detokenizer = Detokenizer(tokenizer, options.stop, before, n_given) if tokenizer else None
            ends = special_ids.eos_token_ids
            row = Row(ids, choose, max_new_tokens, ends, detokenizer, with_log_probabilities, drafter, with_prompt)
            rows.append(row)
    return rows


def choose_and_draft(
    options: Options, hparams: HParams, rng: np.random.Generator
) -> tuple[Callable[..., int], Drafter | None]:
    """How a row chooses its tokens, drawing from rng, and what drafts them."""
    if options.assistant_model:
        assistant = Assistant(options.assistant_model, hparams, rng, options.sampling)
        return assistant.choose, assistant
    n_most = options.prompt_lookup_num_tokens
    return partial(sampling.next_token, rng=rng, **options.sampling), Lookup(n_most) if n_most else None


def encode_prompt(
    prompt: Prompt, hparams: HParams, tokenizer: Tokenizer | None, slide: bool, bos_token_id: int | None = None
) -> list[int]:
    """The ids of a prompt. For an empty one, the token after which the model begins a new text.

    That is bos_token_id or, if it is None, `<|endoftext|>`.

    Raises:
        ValueError: the prompt is text and there is no vocabulary, its ids are not ids of this model, or there
            are more of them than the context holds and it does not slide.
    """
    if isinstance(prompt, str):
        prompt = require(tokenizer).encode(prompt)
    if isinstance(prompt, Sized) and len(prompt) == 0:
        first = tokenizer.end_of_text if tokenizer and bos_token_id is None else bos_token_id
        prompt = [] if first is None else [first]
    batch = checks.check_ids(prompt, hparams)
    if len(batch) > 1:
        raise ValueError("a prompt is one row of token ids, and this is several")
    if not slide:
        try:
            checks.check_fits(batch, hparams)
        except ValueError as error:
            raise ValueError(f"{error}; slide (--slide) would read only its last part") from None
    return batch[0].tolist()


def as_prompts(prompt: Any) -> tuple[list[Any], bool]:
    """The prompts, given one (text, or a row of ids) or several; and whether several were given.

    The padding of a `Batch` does not count. An empty list is a list without prompts, not a prompt without ids.
    """
    if isinstance(prompt, (str, bytes)) or not np.iterable(prompt):
        return [prompt], False
    if isinstance(prompt, Batch):
        return [ids[:length] for ids, length in zip(prompt.ids, prompt.lengths, strict=True)], True
    items = list(prompt)
    return (items, True) if not items or np.iterable(items[0]) else ([items], False)


def require(tokenizer: Tokenizer | None, advice: str = "give token ids") -> Tokenizer:
    """The tokenizer, where text is given or asked for.

    Raises:
        ValueError: the model has none; the message ends with the advice, and with what a vocabulary would be.
    """
    if tokenizer is None:
        raise ValueError(
            f"this model has no vocabulary and knows only ids: {advice} (the vocabulary of a folder is tokenizer.json, "
            "or vocab.json and merges.txt)"
        )
    return tokenizer
