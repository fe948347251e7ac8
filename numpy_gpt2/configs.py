"""The files that say what shape a model has: OpenAI's `hparams.json` and Hugging Face's `config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import read_object, write_json
from .params import HParams, check_hparams
from .tokenizer import END_OF_TEXT, Tokenizer
from .vocabulary import ADDED

WRITTEN_BY = "numpy_gpt2"  # marks a config.json that was written here

HPARAMS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}

# Where the configuration leaves a choice: what GPT-2 is. A value that is not given is the first.
GPT2: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names for the tanh form
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
DOUBLE_HEADS = "GPT2DoubleHeadsModel"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model", DOUBLE_HEADS)

# The same for the multiple-choice head: one linear map, of the vector at the classification token.
MULTIPLE_CHOICE: dict[str, tuple[Any, ...]] = {
    "summary_type": ("cls_index",),
    "summary_use_proj": (True,),
    "summary_proj_to_labels": (True,),
    "summary_activation": (None, ""),
}


def read_hparams(folder: Path) -> HParams:
    """The hyper-parameters of the model in a folder, from its `hparams.json` or `config.json`.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
        ValueError: a file is not JSON, a number is missing, the numbers describe no model, or the model
            is not a GPT-2.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    hparams_file, config_file = folder / "hparams.json", folder / "config.json"
    if not hparams_file.exists():
        if not config_file.exists():
            raise FileNotFoundError(f"there is no model in {folder}: neither hparams.json nor config.json")
        return read_config(config_file)
    hparams = read_hparams_file(hparams_file)
    if config_file.exists() and not is_written_here(config_file) and read_config(config_file) != hparams:
        raise ValueError(f"{hparams_file} and {config_file.name} beside it describe two different models: remove one")
    return hparams


def read_hparams_file(file: Path) -> HParams:
    """The hyper-parameters in an `hparams.json`.

    Raises:
        FileNotFoundError, ValueError: as `read_hparams`.
    """
    return checked_hparams(file, read_object(file), {name: name for name in HParams._fields})


def checked_hparams(file: Path, values: dict[str, Any], spelling: dict[str, str]) -> HParams:
    """Hyper-parameters from the values in a file, which has names of its own for them.

    Raises:
        ValueError: a value is missing, or `check_hparams` refuses them.
    """
    if missing := [name for name in spelling.values() if name not in values]:
        raise ValueError(f"{file} does not say {', '.join(missing)}")
    hparams = HParams(**{ours: values[theirs] for ours, theirs in spelling.items()})
    try:
        check_hparams(hparams)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return hparams


def read_config(file: Path) -> HParams:
    """The hyper-parameters in a `config.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not the configuration of a GPT-2, or of one that computes something else.
    """
    config = read_object(file)
    check_choices(file, config, GPT2)
    architectures = config.get("architectures") or ARCHITECTURES
    if not isinstance(architectures, (list, tuple)) or not {*map(str, architectures)} & {*ARCHITECTURES}:
        raise ValueError(f"{file}: the architecture is {architectures}, but only {', '.join(ARCHITECTURES)} run here")
    hparams = checked_hparams(file, config, HPARAMS)
    if config.get("n_inner") not in (None, 4 * hparams.n_embd):
        raise ValueError(f"{file}: n_inner is {config['n_inner']!r}, but GPT-2's is 4 * n_embd, {4 * hparams.n_embd}")
    return hparams


def check_choices(file: Path, config: dict[str, Any], known: dict[str, tuple[Any, ...]]) -> None:
    """Checks that a configuration chooses what can be computed here.

    Raises:
        ValueError: it chooses something else.
    """
    for name, values in known.items():
        if config.get(name, values[0]) not in values:
            raise ValueError(f"{file}: {name} is {config[name]!r}, but only GPT-2's {values[0]!r} can be computed here")


def check_multiple_choice(folder: Path) -> None:
    """Checks that the multiple-choice head of the model in a folder is one that can be computed here.

    Raises:
        ValueError: it is not.
    """
    file = folder / "config.json"
    check_choices(file, read_object(file), MULTIPLE_CHOICE)


def is_written_here(file: Path) -> bool:
    """Whether a `config.json` was written here, and not by transformers from one that was."""
    try:
        config = read_object(file)
    except ValueError:
        return False
    return config.get("written_by") == WRITTEN_BY and "transformers_version" not in config


def write_configs(
    folder: Path, hparams: HParams, tokenizer: Tokenizer | None, dtype: npt.DTypeLike, double_heads: bool = False
) -> None:
    """Writes what `AutoModel` and `AutoTokenizer` want beside `model.safetensors`: configurations and vocabulary.

    A vocabulary that a model without one finds there is removed.

    Args:
        folder: where to.
        hparams, tokenizer: of the model.
        dtype: the type of its parameters.
        double_heads: whether it has a multiple-choice head.

    Raises:
        OSError: a file cannot be written.
    """
    end_of_text = tokenizer.end_of_text if tokenizer else hparams.n_vocab - 1
    config = {
        **{name: known[0] for name, known in GPT2.items()},
        "architectures": [DOUBLE_HEADS if double_heads else ARCHITECTURES[0]],
        **{theirs: getattr(hparams, ours) for ours, theirs in HPARAMS.items()},
        "n_inner": None,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "use_cache": True,
        "dtype": np.dtype(dtype).name,
        "written_by": WRITTEN_BY,
    }
    write_json(folder / "config.json", config, indent=2)
    if tokenizer is None:
        for name in ("tokenizer_config.json", "vocab.json", "merges.txt", ADDED):
            (folder / name).unlink(missing_ok=True)
        return
    tokenizer.save(folder)
    tokenizer_config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "model_max_length": hparams.n_ctx,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
    }
    write_json(folder / "tokenizer_config.json", tokenizer_config, indent=2)
