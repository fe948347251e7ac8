"""The way in: `load` a model, ask it for logits, let it write, score a text with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import checkpoints, model, scoring
from .backend import array_to, choose_backend, params_to, to_host
from .configs import read_hparams
from .download import download, expand, is_on_disk, model_folder, model_name
from .generation import Row, TextStream, generate
from .heads import DoubleHeads, check_choices, double_heads
from .params import Array, HParams, Linear, Params, count_params, init_params
from .prompts import Options, Prompt, as_prompts, check_options, require, start_rows
from .sampling import check_whole_number
from .tokenizer import Batch, Tokenizer
from .vocabulary import find_vocabulary


class GPT2:
    """A GPT-2 model with its vocabulary.

    Attributes:
        hparams: the five numbers that give its shape.
        params: its parameters; `params.h[0].mlp.c_fc.w` is a plain NumPy array.
        tokenizer: text to ids and back; None for a model that came without a vocabulary, which knows only ids.
        name: what it was loaded as.
        multiple_choice_head: the second head of a double-heads model, otherwise None.
    """

    def __init__(
        self,
        hparams: HParams,
        params: Params,
        tokenizer: Tokenizer | None,
        name: str,
        multiple_choice_head: Linear | None = None,
    ) -> None:
        self.hparams = hparams
        self.params = params
        self.tokenizer = tokenizer
        self.name = name
        self.multiple_choice_head = multiple_choice_head

    def __repr__(self) -> str:
        return f"<GPT2 {self.name}: {count_params(self.params):,} parameters, {self.hparams}>"

    def to(self, backend: str) -> GPT2:
        """The model where a backend computes: `"numpy"` in main memory, `"cupy"` on a GPU. Itself, if it is there.

        Raises:
            ImportError: CuPy is not installed, or does not find a GPU.
            ValueError: there is no such backend.
        """
        if choose_backend(backend) == self.backend:
            return self
        params = params_to(backend, self.params, self.hparams)
        head = self.multiple_choice_head and Linear(*(array_to(backend, each) for each in self.multiple_choice_head))
        return GPT2(self.hparams, params, self.tokenizer, self.name, head)

    @property
    def backend(self) -> str:
        """Where it computes."""
        return "numpy" if isinstance(self.params.wte, np.ndarray) else "cupy"

    def new_past(self, n_batch: int = 1) -> model.Past:
        """A past in which nothing has been read yet, to give to `logits`."""
        return model.Past(self.params, self.hparams.n_head, n_batch)

    def logits(
        self, ids: Prompt | npt.ArrayLike, past: model.Past | None = None, token_type_ids: npt.ArrayLike | None = None
    ) -> Array:
        """Scores for the token that follows each position; `layers.softmax` makes them probabilities.

        With a past, ids continue the tokens that were read with it before, and are added to it. Texts of
        different lengths may be padded on the right, as `Tokenizer.encode_batch` does it: what follows
        a text changes nothing in it. With token_type_ids, the embedding of that token is added to each.

        Shapes: ids (or the text of one row) and token_type_ids `[n_seq]` or `[n_batch, n_seq]` to
        `[..., n_seq, n_vocab]`.

        Raises:
            ValueError: the ids are not ids of this model, or too many for its context; or the past was
                made for another model.
        """
        if past is not None and past.params is not self.params:
            raise ValueError("this past was made for another model; new_past() makes one for this")
        batch, types = self._check(ids, past, token_type_ids)
        logits = model.logits(batch, self.params, self.hparams.n_head, past, types)
        return to_host(logits if np.ndim(ids) == 2 else logits[0])

    def hidden_states(self, ids: Prompt | npt.ArrayLike, token_type_ids: npt.ArrayLike | None = None) -> list[Array]:
        """The vectors that run through the model: what enters each block, and last, normalised, what leaves them all.

        They are those of `GPT2Model` in transformers, with `output_hidden_states`.

        Shapes: ids (or the text of one row) and token_type_ids `[n_seq]` or `[n_batch, n_seq]` to n_layer + 1
        times `[..., n_seq, n_embd]`.

        Raises:
            ValueError: the ids are not ids of this model, or too many for its context.
        """
        batch, types = self._check(ids, token_type_ids=token_type_ids)
        states = model.hidden_states(batch, self.params, self.hparams.n_head, token_type_ids=types)
        return [to_host(x if np.ndim(ids) == 2 else x[0]) for x in states]

    def generate(
        self,
        prompt: Prompt | Iterable[Prompt] | Batch,
        max_new_tokens: int | None = None,
        *,
        max_length: int | None = None,
        num_return_sequences: int = 1,
        temperature: float = 1.0,
        top_k: int = 40,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        stop: str | Iterable[str] | None = None,
        seed: int | np.random.SeedSequence | None = None,
        slide: bool = False,
        return_full_text: bool = False,
        return_details: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Any:
        """Continues a prompt, or several at once, and returns the continuation.

        It ends where the model ends the text, at a stop string, after as many tokens as are asked for, or
        when the context is full.

        Args:
            prompt: text or token ids; if empty, the model begins a text of its own. Or a list of prompts,
                or what `Tokenizer.encode_batch` makes of one, to be worked on as one batch; an empty list
                is one without prompts.
            max_new_tokens: how many tokens to add at most; by default 64.
            max_length: the same, but counted with those of the prompt.
            num_return_sequences: how many continuations of each prompt.
            temperature: 0 for the likeliest token each time; below 1 less, above 1 more surprising.
            top_k: draw only from the k likeliest tokens; 0 for all.
            top_p: draw only from the likeliest tokens with this probability together; 1 for all.
            repetition_penalty: above 1, tokens that are in the text already become less likely.
            stop: a string, or several, before which the text is cut off.
            seed: the same seed gives the same texts; None others each time. With a
                `numpy.random.SeedSequence`, each call goes on with the random numbers that follow.
            slide: where the context is full, even by the prompt alone, keep only its newest half and go on,
                which takes a while each time.
            return_full_text: return the prompt before the continuation.
            return_details: return a `Generation` in place of each string.
            progress: is called after each step with the number of texts that took part.

        Returns:
            A string (or `Generation`) for one prompt, a list of them with num_return_sequences above 1;
            for a list of prompts, a list with one or the other for each.

        Raises:
            ValueError: an argument is out of its range, or a prompt is longer than the context.
        """
        options = Options(
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            stop=stop,
            seed=seed,
            slide=slide,
            return_full_text=return_full_text,
        )
        options = check_options(options)
        num_return_sequences = check_whole_number("num_return_sequences", num_return_sequences, at_least=1)
        if not return_details:
            require(self.tokenizer)
        prompts, several = as_prompts(prompt)
        rows = start_rows(
            prompts,
            num_return_sequences,
            options,
            self.hparams,
            self.tokenizer,
            with_log_probabilities=return_details,
        )
        for _ in self._steps(rows, slide, progress):
            pass
        made: list[Any] = [row.generation() if return_details else row.generation().text for row in rows]
        if num_return_sequences > 1:
            made = [made[i : i + num_return_sequences] for i in range(0, len(made), num_return_sequences)]
        return made if several else made[0]

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int | None = None,
        *,
        progress: Callable[[int], object] | None = None,
        **options: Any,
    ) -> TextStream:
        """Like `generate`, but returns the text of one prompt piece by piece, as it is made: whole characters only.

        Args:
            prompt: text or token ids.
            max_new_tokens: how many tokens to add at most; by default 64.
            progress: is called after each token with the number 1.
            options: `max_length`, `temperature`, `top_k`, `top_p`, `repetition_penalty`, `stop`, `seed`,
                `slide` and `return_full_text`, as for `generate`.

        Raises:
            ValueError: as `generate`, before the first piece.
        """
        if unknown := options.keys() - {*Options._fields}:
            raise TypeError(f"stream() got an unexpected keyword argument {min(unknown)!r}")
        chosen = check_options(Options(max_new_tokens, **options))
        require(self.tokenizer)
        prompts, several = as_prompts(prompt)
        if several and prompts:
            raise ValueError("stream takes one prompt at a time; generate takes several")
        (row,) = start_rows(prompts or [""], 1, chosen, self.hparams, self.tokenizer, with_log_probabilities=False)
        return TextStream(row, self._steps([row], chosen.slide, progress))

    def score(self, text: Prompt, stride: int | None = None) -> Iterator[scoring.Scores]:
        """Scores every token of a text but the first: its log-probability and its rank, given those before it.

        Args:
            text: text, or token ids `[n_seq]` or `[n_batch, n_seq]`, of any length.
            stride: for a text longer than the context, how far its windows are apart, in tokens: less
                than the context, by default half of it.

        Returns:
            An iterator of the scores of a few tokens at a time, `[n_batch, n_seq - 1]` together.

        Raises:
            ValueError: the ids are not ids of this model, or stride is out of its range.
        """
        ids = model.check_ids(self._ids(text), self.hparams)
        return scoring.score(ids, self.params, self.hparams.n_head, self._stride(stride))

    def loss(
        self, ids: Prompt | npt.ArrayLike, labels: npt.ArrayLike | None = None, stride: int | None = None
    ) -> float:
        """The cross-entropy of the model's predictions, in nats per token: the mean of minus each log-probability.

        The first token of a text is not predicted. A text longer than the context is read in windows,
        as `scoring` says.

        Args:
            ids: text, or token ids `[n_seq]` or `[n_batch, n_seq]`.
            labels: the tokens to predict, if they are not ids themselves; -100 for one that does not
                count, such as padding. Shaped like ids and, as in transformers, not shifted.
            stride: as for `score`.

        Raises:
            ValueError: ids or labels are not ids of this model, nothing is left to predict, or stride is
                out of its range.
        """
        batch = model.check_ids(self._ids(ids), self.hparams)
        shape = batch.shape if np.ndim(ids) == 2 else batch.shape[1:]
        given = batch.reshape(shape) if labels is None else labels
        targets = np.atleast_2d(model.check_indices("labels", given, shape, self.hparams.n_vocab, scoring.IGNORED))
        scores = scoring.join(scoring.score(batch, self.params, self.hparams.n_head, self._stride(stride), targets))
        return scoring.cross_entropy(scores.log_probabilities, targets[:, 1:])

    def perplexity(self, text: Prompt, stride: int | None = None) -> float:
        """How many tokens the model hesitates between on average: the exponential of the loss.

        Args:
            text: text or token ids, of any length.
            stride: as for `score`.

        Raises:
            ValueError: as `loss`.
        """
        return scoring.perplexity(self.loss(self._ids(text), stride=stride))

    def double_heads(
        self,
        ids: npt.ArrayLike,
        mc_token_ids: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        mc_labels: npt.ArrayLike | None = None,
    ) -> DoubleHeads:
        """What both heads of a double-heads model say of several choices: logits, scores and, given labels, losses.

        Arguments and results are named as in `GPT2DoubleHeadsModel` of transformers.

        Args:
            ids: the choices, `[n_batch, n_choices, n_seq]`.
            mc_token_ids: where the classification token of each stands, `[n_batch, n_choices]`; by default last.
            token_type_ids: tokens whose embeddings are added, shaped like ids.
            labels: the tokens to predict, shaped like ids and not shifted; -100 for one that does not count.
            mc_labels: which choice is the right one, `[n_batch]`; -100 for one that does not count.

        Raises:
            ValueError: this model has no second head, or an argument is out of its range or shape.
        """
        if self.multiple_choice_head is None:
            raise ValueError("this model has no multiple-choice head; a folder that GPT2DoubleHeadsModel saved has one")
        given = check_choices(self.hparams, ids, mc_token_ids, token_type_ids, labels, mc_labels)
        said = double_heads(given, self.params, self.multiple_choice_head, self.hparams.n_head)
        return said._replace(logits=to_host(said.logits), mc_logits=to_host(said.mc_logits))

    def _steps(self, rows: list[Row], slide: bool, progress: Callable[[int], object] | None) -> Iterator[int]:
        """The steps of the autoregressive loop, each of which is reported."""
        for n_rows in generate(rows, self.params, self.hparams.n_head, slide):
            if progress:
                progress(n_rows)
            yield n_rows

    def _ids(self, text: Prompt | npt.ArrayLike) -> npt.ArrayLike:
        """The ids of what may be text or ids."""
        return require(self.tokenizer).encode(text) if isinstance(text, str) else text

    def _check(
        self, ids: Prompt | npt.ArrayLike, past: model.Past | None = None, token_type_ids: npt.ArrayLike | None = None
    ) -> tuple[Array, Array | None]:
        """Ids and token types from outside, checked, as `[n_batch, n_seq]`."""
        batch = model.check_ids(self._ids(ids), self.hparams)
        model.check_fits(batch, self.hparams, past)
        if token_type_ids is None:
            return batch, None
        shape = batch.shape if np.ndim(ids) == 2 else batch.shape[1:]
        types = model.check_indices("token_type_ids", token_type_ids, shape, self.hparams.n_vocab)
        return batch, np.atleast_2d(types)

    def _stride(self, stride: int | None) -> int:
        """The stride to score with: half of the context, if it is not said."""
        stride = self.hparams.n_ctx // 2 if stride is None else stride
        return check_whole_number("stride", stride, at_least=1, at_most=self.hparams.n_ctx - 1)


def load(
    name_or_folder: str | os.PathLike[str],
    models_dir: str | os.PathLike[str] | None = None,
    dtype: npt.DTypeLike = np.float32,
    backend: str | None = None,
) -> GPT2:
    """Loads a model. What is missing of one with a name is downloaded first, after a line that says how large it is.

    Args:
        name_or_folder: a name (`tiny`, which comes with the package, `124M`, `355M`, `774M`, `1558M`,
            `distilgpt2`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`), or a folder with OpenAI's files
            or with those of Hugging Face's `save_pretrained`.
        models_dir: the folder that the models with a name are in, each in one of its name; by default
            the environment's `NUMPY_GPT2_MODELS`, or else a folder in the user's cache.
        dtype: `"float32"`, or `"float64"` for twice the digits at half the speed.
        backend: where it is to compute: `"numpy"`, or `"cupy"` for a GPU; by default the environment's
            `NUMPY_GPT2_BACKEND`, or else NumPy.

    Raises:
        FileNotFoundError: there is no such folder, or one of its files is missing.
        ImportError: it is a TensorFlow checkpoint, and TensorFlow is not installed; or the backend is
            cupy, and CuPy is not installed or does not find a GPU.
        OSError: it cannot be downloaded.
        ValueError: there is no model of that name, a file is damaged or does not fit the others, or the
            model is not a GPT-2.
    """
    backend = choose_backend(backend)
    folder = model_folder(name_or_folder, models_dir)
    name = model_name(name_or_folder)
    if name and not is_on_disk(name, models_dir):
        download(name, models_dir)
    hparams = read_hparams(folder)
    tokenizer = Tokenizer.load(folder) if find_vocabulary(folder) else None
    if tokenizer and tokenizer.n_vocab != hparams.n_vocab:
        raise ValueError(
            f"{folder}: the vocabulary has {tokenizer.n_vocab} tokens, but the hyper-parameters say {hparams.n_vocab}"
        )
    params = checkpoints.load_params(folder, hparams, tokenizer, dtype)
    head = checkpoints.load_multiple_choice_head(folder, hparams, dtype)
    return GPT2(hparams, params, tokenizer, os.fspath(name_or_folder), head).to(backend)


def save(model: GPT2, folder: str | os.PathLike[str]) -> None:
    """Saves a model as Hugging Face does: `load` opens the folder, and so do `GPT2LMHeadModel` and `AutoTokenizer`.

    A model with a multiple-choice head is saved with it, for `GPT2DoubleHeadsModel`.

    The folder is made if it is not there; a model that was saved to it before is replaced.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it holds another model, or a vocabulary, that was not saved here.
    """
    model = model.to("numpy")
    checkpoints.save(expand(folder), model.hparams, model.params, model.tokenizer, model.multiple_choice_head)


def init(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32, backend: str | None = None) -> GPT2:
    """A model with random parameters, drawn as `init_params` says.

    With GPT-2's n_vocab of 50257 it has GPT-2's vocabulary, otherwise none: then it knows only ids.

    Raises:
        ImportError: the backend is cupy, and CuPy is not installed or does not find a GPU.
        ValueError: the hyper-parameters are not those of any model, or there is no such backend.
    """
    backend = choose_backend(backend)
    params = init_params(hparams, seed, dtype)
    tokenizer = Tokenizer.gpt2() if hparams.n_vocab == 50257 else None
    return GPT2(hparams, params, tokenizer, name="random").to(backend)
