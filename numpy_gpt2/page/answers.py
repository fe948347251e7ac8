"""Answers to the page's requests: from plain data to plain data, line by line. HTTP is not known here."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from .. import generation, gpt2, sampling
from ..decoding import prompts
from ..decoding.half_words import HalfWord, take_back
from ..decoding.options import check_options
from ..decoding.row import Row
from ..gpt2 import GPT2
from ..hub import listing, names
from ..machine.threads import fitted
from ..params import count_params
from ..tokenizer import Tokenizer
from ..weights.tensorflow import HUB_NAMES
from . import reading
from .fields import LOOKING, check_request
from .looking import Looking
from .reading import Line
from .turns import Turns

T = TypeVar("T")


class Answers:
    """Answers requests with a model.

    Several threads may ask at the same time. They take turns, each for a step of the model.

    Args:
        model: a model with a vocabulary.
        models_dir: as for `gpt2.load`, for the models that may be chosen.
        load: loads one of them, given its name; by default, `gpt2.load`.
        clock: the time in seconds.

    Attributes:
        model: the model that answers.

    Raises:
        ValueError: the model has no vocabulary.
    """

    def __init__(
        self,
        model: GPT2,
        models_dir: str | None = None,
        load: Callable[[str], GPT2] = gpt2.load,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        vocabulary(model)
        self.model = model
        self._looking = Looking(model, partial(self._in_turns, model=model))
        self._first = model.name
        self._models_dir, self._load, self._clock = models_dir, load, clock
        self._turns, self._loads = Turns(), Turns()

    def answer(self, request: Any) -> Iterator[Line]:
        """The lines of the answer, one after another; once that is closed, the model does no further step.

        Args:
            request: an object with a `kind`, such as `about`, and the arguments of the method of that name as its
                other fields. `fields` says what they may be.

        Returns:
            What the method returns. A line `{"error": sentence}` ends an answer that cannot be given. An empty line
            says only that the model is at work: it is a chance to close the answer.
        """
        try:
            kind, given = check_request(request)
            yield from self._look(kind, **given) if kind in LOOKING else getattr(self, kind)(**given)
        except (ValueError, OSError, ImportError, MemoryError) as error:
            yield {"error": sentence(error)}

    def _look(self, kind: str, model: str | None, **given: Any) -> Iterator[Line]:
        """The lines of an answer of `Looking`; an error if another model answers than the one that is asked."""
        looking = self._looking
        if model not in (None, looking.name):
            return iter([{"error": f"{model} no longer answers: {looking.name} was loaded", "model": looking.name}])
        lines: Iterator[Line] = getattr(looking, kind)(**given)
        return lines

    def about(self) -> Iterator[Line]:
        """A line that describes the model and the sampling options."""
        yield about(self.model)

    def models(self) -> Iterator[Line]:
        """A line for each model that may be chosen, whether it is on disk or not; some have a second name."""
        for name in self._names():
            folder = names.locate(name, self._models_dir)
            source = names.source(name)
            n_bytes = listing.size_of(folder) if folder else listing.download_size(source) if source else 0
            yield {"name": name, "n_bytes": n_bytes, "is_here": folder is not None, "same_as": HUB_NAMES.get(name)}

    def load(self, model: str, text: str) -> Iterator[Line]:
        """Changes the model: a line before that, then one that describes the model and counts the text's tokens.

        One model is loaded at a time, and whoever has gone before theirs is loaded does not change the model.

        Raises:
            ImportError, OSError, ValueError: as for `gpt2.load`; or the model is not one of `models`, or not on disk.
        """
        n_before = len(vocabulary(self.model).encode(text))
        if model not in self._names():
            raise ValueError(f"there is no model {model[:100]!r} to choose from")
        if not names.is_on_disk(model, self._models_dir):
            raise ValueError(f"{model} is not on this machine: `numpy-gpt2 download {model}` fetches it")
        yield {"progress": None, "what": f"loading {model}"}
        with self._loads:
            yield {}  # whoever has gone while another one was loaded ends here
            loaded = self.model if model == self.model.name else self._load(model)
            n_tokens = len(vocabulary(loaded).encode(text))
            yield {"progress": 1, "what": f"{model} is loaded"}  # or here
            self.model, self._looking = loaded, Looking(loaded, partial(self._in_turns, model=loaded))
        yield {"about": about(loaded), "n_tokens_before": n_before, "n_tokens": n_tokens}

    def tokens(self, text: str, n_alternatives: int) -> Iterator[Line]:
        """A line for each token of a text: its place, probability and rank, and the tokens that are likeliest there.

        The first token has no probability, as in `GPT2.score`: there is nothing before it, since `GPT2.generate`
        continues a text without `<|endoftext|>` before it. Its line also has the name of the model. `reading` says how
        a long text is read, and what a place is.
        """
        model, tokenizer = self.model, vocabulary(self.model)
        ids = tokenizer.encode(text)
        placed = reading.placed(ids, tokenizer)
        for first in itertools.islice(placed, 1):
            yield {"model": model.name, **first, "probability": None, "rank": None, "alternatives": []}
        for logits in self._in_turns(reading.predictions(ids, model), model):
            if not len(logits):
                yield {}
            for each, token in zip(logits, placed, strict=False):  # takes no token where no logits are left
                yield {**token, **reading.judged(token["id"], each, n_alternatives, tokenizer)}

    def suggest(
        self, text: str, n: int, max_new_tokens: int, seed: int | None, stop: Sequence[str], options: dict[str, Any]
    ) -> Iterator[Line]:
        """Continuations of a text as they are made: those of `GPT2.generate`, where the text ends in a whole word.

        The tokens of a half word are taken back, as `half_words.take_back` says, and only what completes the word is
        admitted; the new text begins after what is there already. `context` says how much of a long text is seen.

        Returns:
            First the name of the model, the seed, how many tokens were taken back (`n_dropped`), their text
            (`half_word`), and how many tokens of the beginning are not seen (`n_unseen`). Then after each step, for
            each row that took part, its new text and ids, and why it ends, if it does. Last, how many tokens were made,
            in how many seconds, and that many a second; while others had their turns, the time went on.
        """
        began = self._clock()
        model = self.model
        ids, half_word, n_unseen = context(model, text, max_new_tokens)
        seed = secrets.randbelow(2**32) if seed is None else seed
        chosen = check_options(max_new_tokens=max_new_tokens, stop=stop, seed=seed, slide=True, **options)
        rows = prompts.start_rows([ids], n, chosen, model.hparams, model.tokenizer, model.special_ids, False, half_word)
        yield {"model": model.name, "seed": seed, **taken_back(half_word), "n_unseen": n_unseen}
        steps = generation.generate_batch(rows, model.params, model.hparams.n_head, slide=True)
        yield from news(rows, self._in_turns(steps, model))
        n_tokens, seconds = sum(len(row.ids) for row in rows), self._clock() - began
        yield {"tokens": n_tokens, "seconds": seconds, "tokens_per_second": n_tokens / seconds if seconds else None}

    def distribution(self, text: str, options: dict[str, Any], n: int, max_new_tokens: int) -> Iterator[Line]:
        """A line with the distribution of the token that follows a text, for the model alone and in the draw.

        Where the text ends in a half word, that is the token which completes the word: it is one of those that
        `suggest`, with the same max_new_tokens, admits.

        Returns:
            The n likeliest tokens, and those in the draw that are among its n likeliest, each with its `probability`
            (at temperature 1, and without any option) and its probability in the draw, `drawn`; how many tokens are in
            the draw, `n_kept`; the sums over all `others`; `n_dropped`, `half_word` and `n_unseen` as for `suggest`.
        """
        model, tokenizer = self.model, vocabulary(self.model)
        ids, half_word, n_unseen = context(model, text, max_new_tokens)
        ids = prompts.encode_prompt(ids, model.hparams, tokenizer, False, model.special_ids.bos_token_id)
        for logits in self._in_turns(reading.next_logits(ids, model), model):
            if not len(logits):
                yield {}
        logits = logits[0]
        admitted = half_word.admit(logits, []) if half_word else logits
        adjusted = sampling.final_logits(admitted, ids, **options)
        yield {**reading.chances(admitted, adjusted, n, tokenizer), **taken_back(half_word), "n_unseen": n_unseen}

    def _names(self) -> list[str]:
        """The names of the models that may be chosen; that with which the page began may be a folder."""
        return [*dict.fromkeys([*names.NAMES, *listing.repositories(self._models_dir), self._first])]

    def _in_turns(self, steps: Iterator[T], model: GPT2) -> Iterator[T]:
        """The same steps of a model, each of them taken in a turn."""
        steps = fitted(steps, count_params(model.hparams))
        while True:
            with self._turns:
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step


def sentence(error: Exception) -> str:
    """What to say about an error."""
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    return str(error) or "there is not enough memory"


def vocabulary(model: GPT2) -> Tokenizer:
    """The tokenizer of a model.

    Raises:
        ValueError: the model has none.
    """
    return prompts.require(model.tokenizer, "the page needs one that writes text")


def about(model: GPT2) -> Line:
    """What the page is told about a model, and the sampling options."""
    options = [
        {
            "name": option.name,
            "default": option.default,
            **ends(option),
            "whole": option.type is int,
            "range": option.range,
            "help": option.help,
        }
        for option in sampling.OPTIONS
    ]
    sizes = model.hparams._asdict()
    return {"model": model.name, "n_parameters": count_params(model.hparams), **sizes, "options": options}


def ends(option: sampling.Option) -> dict[str, float | None]:
    """The least and the greatest value that an option accepts, of 0 and the powers of ten; None if there is no end."""
    accepted = [value for value in (0.0, *(10.0**n for n in range(-4, 5))) if option.accepts(value)]
    return {"low": accepted[0], "high": None if option.accepts(math.inf) else accepted[-1]}


def context(model: GPT2, text: str, max_new_tokens: int) -> tuple[list[int], HalfWord | None, int]:
    """The tokens of a text that are to be continued by max_new_tokens.

    Of a long text, they are the newest: as many as leave room in the context, but at least half of it.

    Returns:
        The ids; what was taken back after them; and how many tokens before them are not seen.
    """
    tokenizer, n_ctx = vocabulary(model), model.hparams.n_ctx
    ids = tokenizer.encode(text)
    half_word = take_back(text, ids, tokenizer)
    ids = ids[: len(ids) - half_word.n_tokens] if half_word else ids
    n_most = max(n_ctx + 1 - max_new_tokens, n_ctx - n_ctx // 2)  # the last position predicts one more token
    return ids[-n_most:], half_word, max(0, len(ids) - n_most)


def taken_back(half_word: HalfWord | None) -> Line:
    """What the page is told about a half word."""
    return {"n_dropped": half_word.n_tokens if half_word else 0, "half_word": half_word.text if half_word else ""}


def news(rows: Sequence[Row], steps: Iterator[int]) -> Iterator[Line]:
    """After each step, what is new in each row that took part: text and ids that are certain; and why it ended."""
    n_sent = [0] * len(rows)
    growing = [*range(len(rows))]
    for _ in steps:
        for i in growing:
            piece, ids = certain(rows[i])
            yield {"row": i, "text": piece, "ids": ids[n_sent[i] :]}
            n_sent[i] = len(ids)
            if rows[i].finish_reason:
                yield {"row": i, "finish_reason": rows[i].finish_reason}
        growing = [i for i in growing if not rows[i].finish_reason]


def certain(row: Row) -> tuple[str, list[int]]:
    """The text of a row that has become certain since the last call, and all ids that are certain."""
    assert row.detokenizer
    if row.finish_reason:
        row.detokenizer.finish()
        return row.detokenizer.take(), row.ids
    return row.detokenizer.take(), row.ids[: row.detokenizer.n_certain]
