"""The way in: `load` a model, ask it for logits, let it write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from . import checkpoints, model
from .configs import read_hparams
from .download import download, expand, is_on_disk, model_folder, model_name
from .generation import TextStream, generate
from .params import Array, HParams, Params, count_params, init_params
from .sampling import check_sampling, check_whole_number, next_token
from .tokenizer import Tokenizer
from .vocabulary import find_vocabulary

Prompt: TypeAlias = str | Sequence[int] | Array  # text, or token ids [n_seq]


class GPT2:
    """A GPT-2 model with its vocabulary.

    Attributes:
        hparams: the five numbers that give its shape.
        params: its parameters; `params.h[0].mlp.c_fc.w` is a plain NumPy array.
        tokenizer: text to ids and back; None for a model that came without a vocabulary, which knows only ids.
        name: what it was loaded as.
    """

    def __init__(self, hparams: HParams, params: Params, tokenizer: Tokenizer | None, name: str) -> None:
        self.hparams = hparams
        self.params = params
        self.tokenizer = tokenizer
        self.name = name

    def __repr__(self) -> str:
        return f"<GPT2 {self.name}: {count_params(self.params):,} parameters, {self.hparams}>"

    def new_past(self, n_batch: int = 1) -> model.Past:
        """A past in which nothing has been read yet, to give to `logits`."""
        return model.Past(self.params, self.hparams.n_head, n_batch)

    def logits(self, ids: npt.ArrayLike, past: model.Past | None = None) -> Array:
        """Scores for the token that follows each position; `layers.softmax` makes them probabilities.

        With a past, ids continue the tokens that were read with it before, and are added to it.

        Shapes: ids `[n_seq]` or `[n_batch, n_seq]` to `[..., n_seq, n_vocab]`.

        Raises:
            ValueError: the ids are not ids of this model, or too many for its context; or the past was
                made for another model.
        """
        if past is not None and past.params is not self.params:
            raise ValueError("this past was made for another model; new_past() makes one for this")
        batch = model.check_ids(ids, self.hparams, past)
        logits = model.logits(batch, self.params, self.hparams.n_head, past)
        return logits if np.ndim(ids) == 2 else logits[0]

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 40,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> str:
        """Continues a prompt, and returns the continuation.

        It ends where the model ends the text, after `max_new_tokens`, or when the context is full.

        Args:
            prompt: text or token ids; if empty, the model begins a text of its own.
            max_new_tokens: how many tokens to add at most.
            temperature: 0 for the likeliest token each time; below 1 less, above 1 more surprising.
            top_k: draw only from the k likeliest tokens; 0 for all.
            top_p: draw only from the likeliest tokens with this probability together; 1 for all.
            seed: the same seed gives the same text; None another one each time.

        Raises:
            ValueError: an argument is out of its range, or the prompt is longer than the context.
        """
        return "".join(self.stream(prompt, max_new_tokens, temperature, top_k, top_p, seed))

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int = 40,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> TextStream:
        """Like `generate`, but returns the text piece by piece, as it is made.

        Raises:
            ValueError: as `generate`, before the first piece.
        """
        if self.tokenizer is None:
            raise ValueError(
                f"the model {self.name} came without a vocabulary "
                "(tokenizer.json, or vocab.json and merges.txt) and knows only ids"
            )
        check_sampling(temperature, top_k, top_p)
        check_whole_number("max_new_tokens", max_new_tokens)
        if seed is not None:
            check_whole_number("seed", seed)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        batch = model.check_ids(ids if len(ids) else [self.tokenizer.end_of_text], self.hparams)
        if len(batch) != 1:
            raise ValueError(f"there are {len(batch)} rows of token ids; give one prompt at a time")
        rng = np.random.default_rng(seed)

        def choose(logits: Array) -> int:
            return next_token(logits, rng, temperature, top_k, top_p)

        tokens = generate(
            batch[0].tolist(),
            self.params,
            self.hparams.n_head,
            choose,
            max_new_tokens,
            end_of_text=self.tokenizer.end_of_text,
        )
        return TextStream(tokens, self.tokenizer)


def load(
    name_or_folder: str | os.PathLike[str],
    models_dir: str | os.PathLike[str] | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> GPT2:
    """Loads a model. What is missing of one with a name is downloaded first, after a line that says how large it is.

    Args:
        name_or_folder: a name (`tiny`, which comes with the package, `124M`, `355M`, `774M`, `1558M`,
            `distilgpt2`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`), or a folder with OpenAI's files
            or with those of Hugging Face's `save_pretrained`.
        models_dir: the folder that the models with a name are in, each in one of its name; by default
            the environment's `NUMPY_GPT2_MODELS`, or else a folder in the user's cache.
        dtype: `"float32"`, or `"float64"` for twice the digits at half the speed.

    Raises:
        FileNotFoundError: there is no such folder, or one of its files is missing.
        ImportError: it is a TensorFlow checkpoint, and TensorFlow is not installed.
        OSError: it cannot be downloaded.
        ValueError: there is no model of that name, a file is damaged or does not fit the others, or the
            model is not a GPT-2.
    """
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
    return GPT2(hparams, params, tokenizer, name=os.fspath(name_or_folder))


def save(model: GPT2, folder: str | os.PathLike[str]) -> None:
    """Saves a model as Hugging Face does: `load` opens the folder, and so do `GPT2LMHeadModel` and `AutoTokenizer`.

    The folder is made if it is not there; a model that was saved to it before is replaced.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it holds another model, or a vocabulary, that was not saved here.
    """
    checkpoints.save(expand(folder), model.hparams, model.params, model.tokenizer)


def init(hparams: HParams, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> GPT2:
    """A model with random parameters, drawn as `init_params` says.

    With GPT-2's n_vocab of 50257 it has GPT-2's vocabulary, otherwise none: then it knows only ids.

    Raises:
        ValueError: the hyper-parameters are not those of any model.
    """
    params = init_params(hparams, seed, dtype)
    tokenizer = Tokenizer.gpt2() if hparams.n_vocab == 50257 else None
    return GPT2(hparams, params, tokenizer, name="random")
