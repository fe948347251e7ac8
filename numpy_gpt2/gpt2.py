"""The object that a user holds: `load` a model, ask it for logits, let it write, score a text with it.

Each method checks its arguments and leaves the work to functions of other modules, which can also be called alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import checks, generation, interactive
from .cache import Past
from .decoding import prefill, prompts, speculation
from .decoding.options import check_options
from .decoding.row import Row
from .decoding.stream import TextStream
from .evaluation import double_heads, hidden_states, scoring
from .hub import download, names
from .machine import backend as backends
from .machine.memory import keep_freed_memory
from .machine.threads import count_threads_for, fitted, fitting
from .params import Array, HParams, Linear, Params, count_params, init_params
from .text.padding import Batch
from .text.special_ids import SpecialIds
from .text.vocabulary import find_vocabulary
from .tokenizer import Tokenizer
from .weights import config
from .weights import folder as folders

log = logging.getLogger(__name__)


class GPT2(interactive.Hinting):
    """A GPT-2 model with its vocabulary.

    Attributes:
        hparams: the five numbers that give its shape.
        params: its parameters; `params.h[0].mlp.c_fc.w` is a plain NumPy array (on a GPU, a CuPy array).
        tokenizer: text to ids and back; None for a model without a vocabulary, which knows only ids.
        name: what it was loaded as.
        multiple_choice_head: the second head of a double-heads model, otherwise None.
        special_ids: the tokens that end a text, and the one after which it begins; by default `<|endoftext|>`, if there
            is a vocabulary.
    """

    _hints = interactive.MODEL_HINTS | interactive.LENS_HINTS

    def __init__(
        self,
        hparams: HParams,
        params: Params,
        tokenizer: Tokenizer | None,
        name: str,
        multiple_choice_head: Linear | None = None,
        special_ids: SpecialIds | None = None,
    ) -> None:
        self.hparams = hparams
        self.params = params
        self.tokenizer = tokenizer
        self.name = name
        self.multiple_choice_head = multiple_choice_head
        self.special_ids = special_ids or config.default_special_ids(tokenizer)
        keep_freed_memory()

    def __repr__(self) -> str:
        return f"<GPT2 {self.name}: {count_params(self.hparams):,} parameters, {self.hparams}>"

    def _repr_html_(self) -> str:
        parameters = ("parameters", f"{count_params(self.hparams):,}"), ("backend", self.backend)
        return interactive.html_table(f"GPT2 {self.name}", [*parameters, *self.hparams._asdict().items()])

    @property
    def backend(self) -> str:
        """Where the model computes: `"numpy"` in main memory, `"cupy"` on a GPU."""
        return "numpy" if isinstance(self.params.wte, np.ndarray) else "cupy"

    def to(self, backend: str) -> GPT2:
        """The model on another backend, `"numpy"` or `"cupy"`; the model itself, if it is there already.

        Raises:
            ImportError: CuPy is not installed, or does not find a GPU.
            ValueError: there is no such backend.
        """
        if backends.choose_backend(backend) == self.backend:
            return self
        params = backends.params_to(backend, self.params, self.hparams)
        head = self.multiple_choice_head
        head = head and Linear(*(backends.array_to(backend, array) for array in head))
        return GPT2(self.hparams, params, self.tokenizer, self.name, head, self.special_ids)

    def new_past(self, n_batch: int = 1) -> Past:
        """An empty past for n_batch texts, to give to `logits`."""
        return Past(self.params, self.hparams.n_head, n_batch)

    def logits(
        self, ids: prompts.Prompt | npt.ArrayLike, past: Past | None = None, token_type_ids: npt.ArrayLike | None = None
    ) -> Array:
        """For each position, the score of every possible next token; `layers.softmax` makes them probabilities.

        Texts of different lengths may be padded on the right, as `Tokenizer.encode_batch` does: what follows a
        text changes nothing in it. With a past, the ids continue the texts that the past holds, and are added to
        it, padding included: set `past.lengths[:]` to the lengths without padding afterwards.

        Args:
            ids: text, or token ids, `[n_seq]` or `[n_batch, n_seq]`.
            past: what was read before, from `new_past`.
            token_type_ids: tokens whose embeddings are added, shaped like the ids.

        Returns:
            `[..., n_seq, n_vocab]`.

        Raises:
            ValueError: the ids are not ids of this model or too many for its context, the past was made for another
                model, or the logits are not finite numbers.
        """
        if past is not None and past.params is not self.params:
            raise ValueError("this past was made for another model; new_past() makes one for this")
        batch, types = self._check(ids, past, token_type_ids)
        with fitting(self._size):
            logits = prefill.logits(batch, self.params, self.hparams.n_head, past, types)
        checks.check_finite(logits[:, -1])
        return backends.to_host(logits if np.ndim(ids) == 2 else logits[0])

    def hidden_states(
        self, ids: prompts.Prompt | npt.ArrayLike, token_type_ids: npt.ArrayLike | None = None
    ) -> list[Array]:
        """The residual stream: what enters each block, and last, normalised, what leaves the last one.

        These are the hidden states of `GPT2Model` in transformers, with `output_hidden_states`.

        Args:
            ids: text, or token ids, `[n_seq]` or `[n_batch, n_seq]`.
            token_type_ids: tokens whose embeddings are added, shaped like the ids.

        Returns:
            n_layer + 1 arrays, `[..., n_seq, n_embd]`.

        Raises:
            ValueError: the ids are not ids of this model or too many for its context, or the hidden states are not
                finite numbers.
        """
        batch, types = self._check(ids, token_type_ids=token_type_ids)
        with fitting(self._size):
            states = hidden_states.hidden_states(batch, self.params, self.hparams.n_head, types)
        checks.check_finite(states[-1][:, -1])
        return [backends.to_host(x if np.ndim(ids) == 2 else x[0]) for x in states]

    def generate(
        self,
        prompt: prompts.Prompt | Iterable[prompts.Prompt] | Batch,
        max_new_tokens: int | None = None,
        *,
        max_length: int | None = None,
        num_return_sequences: int = 1,
        stop: str | Iterable[str] | None = None,
        seed: int | np.random.SeedSequence | None = None,
        slide: bool = False,
        return_full_text: bool = False,
        return_details: bool = False,
        prompt_lookup_num_tokens: int | None = None,
        assistant_model: GPT2 | None = None,
        progress: Callable[[int], object] | None = None,
        **sampling: float,
    ) -> Any:
        """Continues a prompt, or several at once, and returns the continuation: text or, without a vocabulary, ids.

        A continuation ends where the model ends the text, at a stop string, after as many tokens as asked for,
        or when the context is full.

        Args:
            prompt: text or token ids; if empty, the model begins a new text. Or a list of prompts, or the
                `Batch` that `Tokenizer.encode_batch` makes of one, to be continued as one batch.
            max_new_tokens: the maximum number of new tokens; by default 64.
            max_length: the same, but counted with the tokens of the prompt.
            num_return_sequences: how many continuations of each prompt.
            stop: a string, or several, before which the text is cut off.
            seed: the same seed gives the same texts, None different ones each time. With a
                `numpy.random.SeedSequence`, each call uses the random numbers that follow those of the last.
            slide: when the context is full, even by the prompt alone, keep only its newest half and go on; the
                half is read again each time, which takes a while.
            return_full_text: return the prompt before the continuation.
            return_details: return a `Generation` in place of each string.
            prompt_lookup_num_tokens: draft up to this many tokens at a time from the text so far, and check them in one
                pass: faster where a text is copied, or repeats itself, and the same text. `decoding.speculation`
                tells more. Several texts are then continued one after another.
            assistant_model: the same, with drafts from this smaller model, which has the same vocabulary. Above
                temperature 0, the texts that a seed gives are others, of the same distribution.
            progress: called after each step with the number of texts that took part.
            sampling: how each token is chosen: `temperature` (0 for the likeliest token each time; by default 1),
                `top_k` (by default 40), `top_p` and the other options that `sampling.OPTIONS` describes.

        Returns:
            A string (or `Generation`) for one prompt; a list of them if num_return_sequences is above 1. For a
            list of prompts, a list of these, one for each prompt. A model without a vocabulary returns a list of ids
            in place of each string.

        Raises:
            TypeError: there is no such option.
            ValueError: an argument is out of its range, a prompt is longer than the context, or something is about
                text and the model has no vocabulary.
        """
        chosen = check_options(
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            stop=stop,
            seed=seed,
            slide=slide,
            return_full_text=return_full_text,
            prompt_lookup_num_tokens=prompt_lookup_num_tokens,
            assistant_model=assistant_model,
            **sampling,
        )
        n_each = checks.check_whole_number("num_return_sequences", num_return_sequences, at_least=1)
        if return_details and chosen.return_full_text:
            prompts.require(self.tokenizer, "the ids of a Generation are always those of the continuation")
        each, several = prompts.as_prompts(prompt)
        rows = prompts.start_rows(each, n_each, chosen, self.hparams, self.tokenizer, self.special_ids, return_details)
        for _ in self._steps(rows, slide, progress):
            pass
        if chosen.drafts:
            speculation.log_drafts(rows)
        results: list[Any] = [row.generation() if return_details else row.result() for row in rows]
        if n_each > 1:
            results = [results[i : i + n_each] for i in range(0, len(results), n_each)]
        return results if several else results[0]

    def stream(
        self,
        prompt: prompts.Prompt,
        max_new_tokens: int | None = None,
        *,
        progress: Callable[[int], object] | None = None,
        **others: Any,
    ) -> TextStream:
        """Like `generate`, but returns the text of one prompt piece by piece, in whole characters.

        A model without a vocabulary returns the ids one by one.

        Args:
            prompt: text or token ids.
            max_new_tokens: the maximum number of new tokens; by default 64.
            progress: called after each token with the number 1.
            others: `max_length`, `stop`, `seed`, `slide`, `return_full_text`, `prompt_lookup_num_tokens`,
                `assistant_model` and the sampling options, as for `generate`.

        Raises:
            TypeError, ValueError: as for `generate`, before the first piece.
        """
        chosen = check_options(max_new_tokens=max_new_tokens, **others)
        each, several = prompts.as_prompts(prompt)
        if several and each:
            raise ValueError("stream takes one prompt at a time; generate takes several")
        (row,) = prompts.start_rows(
            each or [[]], 1, chosen, self.hparams, self.tokenizer, self.special_ids, with_log_probabilities=False
        )
        return TextStream(row, self._steps([row], chosen.slide, progress))

    def score(self, text: prompts.Prompt, stride: int | None = None) -> Iterator[scoring.Scores]:
        """Scores every token of a text but the first: its log-probability and its rank, given the tokens before it.

        Args:
            text: text, or token ids `[n_seq]` or `[n_batch, n_seq]`, of any length.
            stride: for a text longer than the context, the distance between the windows in which it is read, in
                tokens: less than the context, by default half of it.

        Returns:
            An iterator of the scores of a few tokens at a time; together they are `[n_batch, n_seq - 1]`.

        Raises:
            ValueError: the ids are not ids of this model, or stride is out of its range.
        """
        ids = checks.check_ids(self._encode(text), self.hparams)
        return fitted(scoring.score(ids, self.params, self.hparams.n_head, self._stride(stride)), self._size)

    def loss(
        self,
        ids: prompts.Prompt | npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        stride: int | None = None,
    ) -> float:
        """The cross-entropy of the model's predictions: the mean of minus each log-probability, in nats per token.

        The first token of a text is not predicted. A text longer than the context is read in windows, as
        `evaluation.scoring` says.

        Args:
            ids: text, or token ids `[n_seq]` or `[n_batch, n_seq]`.
            labels: the tokens to predict, if they are not the ids themselves; -100 for one that does not count,
                such as padding. Shaped like the ids and, as in transformers, not shifted.
            stride: as for `score`.

        Raises:
            ValueError: ids or labels are not ids of this model, nothing is left to predict, or stride is out
                of its range.
        """
        batch = checks.check_ids(self._encode(ids), self.hparams)
        shape = batch.shape if np.ndim(ids) == 2 else batch.shape[1:]
        given = batch.reshape(shape) if labels is None else labels
        targets = np.atleast_2d(checks.check_indices("labels", given, shape, self.hparams.n_vocab, scoring.IGNORED))
        pieces = scoring.score(batch, self.params, self.hparams.n_head, self._stride(stride), targets)
        return scoring.cross_entropy(scoring.join(fitted(pieces, self._size)).log_probabilities, targets[:, 1:])

    def perplexity(self, text: prompts.Prompt, stride: int | None = None) -> float:
        """How many equally likely tokens would be as hard to predict: the exponential of the loss.

        Args:
            text: text or token ids, of any length.
            stride: as for `score`.

        Raises:
            ValueError: as for `loss`.
        """
        return scoring.perplexity(self.loss(self._encode(text), stride=stride))

    def double_heads(
        self,
        ids: npt.ArrayLike,
        mc_token_ids: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        mc_labels: npt.ArrayLike | None = None,
    ) -> double_heads.DoubleHeads:
        """The results of both heads of a double-heads model for several choices: logits, scores and losses.

        Arguments and results are named as in `GPT2DoubleHeadsModel` of transformers.

        Args:
            ids: the choices, `[n_batch, n_choices, n_seq]`.
            mc_token_ids: the position of the classification token of each, `[n_batch, n_choices]`; by default
                the last.
            token_type_ids: tokens whose embeddings are added, shaped like the ids.
            labels: the tokens to predict, shaped like the ids and not shifted; -100 for one that does not count.
            mc_labels: which choice is the right one, `[n_batch]`; -100 for one that does not count.

        Raises:
            ValueError: the model has no second head, or an argument is out of its range or shape.
        """
        if self.multiple_choice_head is None:
            raise ValueError("this model has no multiple-choice head; a folder that GPT2DoubleHeadsModel saved has one")
        choices = double_heads.check_choices(self.hparams, ids, mc_token_ids, token_type_ids, labels, mc_labels)
        with fitting(self._size):
            result = double_heads.double_heads(choices, self.params, self.multiple_choice_head, self.hparams.n_head)
        return result._replace(logits=backends.to_host(result.logits), mc_logits=backends.to_host(result.mc_logits))

    def _steps(self, rows: list[Row], slide: bool, progress: Callable[[int], object] | None) -> Iterator[int]:
        """The steps of the autoregressive loop, each of which is reported."""
        drafts = any(row.drafter for row in rows) and not prefill.reads_whole()
        loop = speculation.generate_each if drafts else generation.generate_batch
        for n_rows in fitted(loop(rows, self.params, self.hparams.n_head, slide), self._size):
            if progress:
                progress(n_rows)
            yield n_rows

    @property
    def _size(self) -> int:
        """The number of parameters, which decides how many threads a pass takes."""
        return count_params(self.hparams)

    def _encode(self, text: prompts.Prompt | npt.ArrayLike) -> npt.ArrayLike:
        """The ids, given text or ids."""
        return prompts.require(self.tokenizer).encode(text) if isinstance(text, str) else text

    def _check(
        self,
        ids: prompts.Prompt | npt.ArrayLike,
        past: Past | None = None,
        token_type_ids: npt.ArrayLike | None = None,
    ) -> tuple[Array, Array | None]:
        """Ids and token types from outside, checked, as `[n_batch, n_seq]`."""
        batch = checks.check_ids(self._encode(ids), self.hparams)
        checks.check_fits(batch, self.hparams, past)
        if token_type_ids is None:
            return batch, None
        shape = batch.shape if np.ndim(ids) == 2 else batch.shape[1:]
        types = checks.check_indices("token_type_ids", token_type_ids, shape, self.hparams.n_vocab)
        return batch, np.atleast_2d(types)

    def _stride(self, stride: int | None) -> int:
        """The stride to score with: by default half of the context."""
        stride = max(1, self.hparams.n_ctx // 2) if stride is None else stride
        return checks.check_whole_number("stride", stride, at_least=1, at_most=max(1, self.hparams.n_ctx - 1))


def load(
    name_or_folder: str | os.PathLike[str],
    models_dir: str | os.PathLike[str] | None = None,
    dtype: npt.DTypeLike = np.float32,
    backend: str | None = None,
) -> GPT2:
    """Loads a model. A model with a name is downloaded first if it is not on disk, after a line that says its size.

    Args:
        name_or_folder: a name: `tiny`, which comes with the package; `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`
            or `distilgpt2` from Hugging Face's hub; `owner/name` or `owner/name@revision` for any other GPT-2
            there; `124M`, `355M`, `774M` or `1558M` for OpenAI's checkpoint, which TensorFlow reads. Or a folder
            with OpenAI's files or with those that Hugging Face's `save_pretrained` writes.
        models_dir: the folder that holds the models with a name, each in a folder of its name; by default the
            environment's `NUMPY_GPT2_MODELS`, or else a folder in the user's cache. A model that is in the user's
            Hugging Face cache is used from there.
        dtype: `"float32"`, or `"float64"` for twice the precision at half the speed.
        backend: where to compute: `"numpy"`, or `"cupy"` for a GPU; by default the environment's
            `NUMPY_GPT2_BACKEND`, or else NumPy.

    Raises:
        FileNotFoundError: there is no such folder, or one of its files is missing.
        ImportError: the model is a TensorFlow checkpoint and TensorFlow is not installed; or the backend is cupy, and
            CuPy is not installed or does not find a GPU.
        OSError: the model cannot be downloaded.
        ValueError: there is no model of that name, a file is damaged or does not match the others, or the
            model is not a GPT-2.
    """
    backend = backends.choose_backend(backend)
    dtype = checks.float_dtype(dtype)
    folder = download.locate_or_download(name_or_folder, models_dir)
    with download.repair_advised(name_or_folder, folder, models_dir):
        model = folders.read_whole(folder, lambda current: read(current, os.fspath(name_or_folder), dtype))
    model = model.to(backend)
    if log.isEnabledFor(logging.DEBUG):
        size = f"{model.hparams.n_layer} layers, {count_params(model.hparams):,} parameters, {dtype}"
        n_threads = count_threads_for(count_params(model.hparams))
        log.debug("%s is in %s: %s, on %s, threads: %s", model.name, folder, size, backend, n_threads)
    return model


def read(folder: Path, name: str, dtype: npt.DTypeLike) -> GPT2:
    """Reads the model in a folder.

    Raises:
        FileNotFoundError, ImportError, ValueError: as for `load`.
    """
    hparams = config.read_hparams(folder)
    tokenizer = Tokenizer.load(folder, hparams.n_vocab) if find_vocabulary(folder) else None
    if tokenizer and tokenizer.n_text > hparams.n_vocab:
        raise ValueError(
            f"{folder}: the vocabulary has {tokenizer.n_vocab} tokens, but the hyperparameters say {hparams.n_vocab}"
        )
    params = folders.load_params(folder, hparams, tokenizer, dtype)
    head = folders.load_multiple_choice_head(folder, hparams, dtype)
    return GPT2(hparams, params, tokenizer, name, head, config.read_special_ids(folder, tokenizer))


def save(
    model: GPT2,
    folder: str | os.PathLike[str],
    also: Callable[[Path], object] = lambda staging: None,
    dtype: npt.DTypeLike | None = None,
) -> None:
    """Saves a model as Hugging Face does: `load` opens the folder, and so do `GPT2LMHeadModel` and `AutoTokenizer`.

    A multiple-choice head is saved as well, for `GPT2DoubleHeadsModel`. The folder is made if it does not
    exist. A model that was saved to it before is replaced in one step: an interrupted save leaves the one or the other.

    Args:
        model: the model.
        folder: the folder.
        also: writes another file to the folder that it is given, which takes its place in the same step.
        dtype: float16 for half the size of float32, with about three significant digits of each number, and fewer below
            0.00006; float32 or float64; by default that of the parameters. `load` converts it.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder holds another model, or a vocabulary, that was not saved here; it has the name of a
            released model, which `load` would load instead; there is no such dtype, or a number is too large for it.
    """
    if not os.fspath(folder):
        raise ValueError("name a folder to save to; '.' is the one in which you are")
    if folder in names.NAMES:
        raise ValueError(f"{folder!r} is the name of a released model: to save to a folder, write it as './{folder}'")
    model = model.to("numpy")
    head, special_ids = model.multiple_choice_head, model.special_ids
    dtype = checks.float_dtype(model.params.wte.dtype if dtype is None else dtype, ("float16", "float32", "float64"))
    folders.save(names.expand(folder), model.hparams, model.params, dtype, model.tokenizer, head, special_ids, also)


def init(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32, backend: str | None = None) -> GPT2:
    """A model with random parameters, drawn as `params.init_params` says.

    With GPT-2's n_vocab of 50257 it has GPT-2's vocabulary. Otherwise it has none, and knows only ids.

    Raises:
        ImportError: the backend is cupy, and CuPy is not installed or does not find a GPU.
        ValueError: no model can have these hyperparameters, the dtype is neither float32 nor float64, or
            there is no such backend.
    """
    backend = backends.choose_backend(backend)
    checks.check_hparams(hparams)
    params = init_params(hparams, seed, checks.float_dtype(dtype))
    tokenizer = Tokenizer.gpt2() if hparams.n_vocab == 50257 else None
    return GPT2(hparams, params, tokenizer, name="random").to(backend)
