"""The files that describe the shape of a model: OpenAI's `hparams.json` and Hugging Face's `config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import checks
from ..machine.files import read_object, write_json
from ..params import HParams
from ..text.special_ids import SpecialIds
from ..tokenizer import Tokenizer

WRITTEN_BY = "numpy_gpt2"  # marks a config.json that this package wrote

# The names that the hyperparameters have in config.json. Where a file has both names of one, the second counts:
# GPT2Config.attribute_map in transformers.
CONFIG_KEYS = {
    "n_vocab": ("vocab_size",),
    "n_ctx": ("n_positions", "max_position_embeddings"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_layer": ("n_layer", "num_hidden_layers"),
}

# The options of config.json that change the result, each with the values that mean GPT-2. The first is the default.
GPT2_OPTIONS: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names for the tanh approximation
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
# Options that GPT-2's own configurations do not have, and that change the result.
OTHER_OPTIONS: dict[str, tuple[Any, ...]] = {"quantization_config": (None,), "per_layer_config": (None,)}

DOUBLE_HEADS = "GPT2DoubleHeadsModel"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model", DOUBLE_HEADS)

# The same for the multiple-choice head: a linear map, applied to the vector at the classification token.
MULTIPLE_CHOICE_OPTIONS: dict[str, tuple[Any, ...]] = {
    "summary_type": ("cls_index",),
    "summary_use_proj": (True,),
    "summary_proj_to_labels": (True,),
    "summary_activation": (None, ""),
}


def read_hparams(folder: Path) -> HParams:
    """Reads the hyperparameters of the model in a folder, from its `hparams.json` or `config.json`.

    Raises:
        FileNotFoundError: the folder does not exist, or has neither file.
        ValueError: a file is not JSON, a hyperparameter is missing, no model can have these hyperparameters,
            the model is not a GPT-2, or the two files disagree.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    hparams_file, config_file = folder / "hparams.json", folder / "config.json"
    if not hparams_file.exists():
        if not config_file.exists():
            raise FileNotFoundError(f"there is no model in {folder}: neither hparams.json nor config.json")
        return read_config(config_file)
    hparams = read_hparams_file(hparams_file)
    if config_file.exists() and read_config(config_file) != hparams:
        raise ValueError(f"{hparams_file} and {config_file.name} beside it describe two different models: remove one")
    return hparams


def read_hparams_file(file: Path) -> HParams:
    """Reads the hyperparameters in an `hparams.json`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not JSON, a hyperparameter is missing, or no model can have these
            hyperparameters.
    """
    return checked_hparams(file, read_object(file), {name: (name,) for name in HParams._fields})


def read_config(file: Path) -> HParams:
    """Reads the hyperparameters in a `config.json`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: as for `read_hparams_file`; or the file describes another kind of model than GPT-2, or a
            variant that cannot be computed here.
    """
    config = read_object(file)
    check_values(file, config, GPT2_OPTIONS | OTHER_OPTIONS)
    architectures = config.get("architectures") or ARCHITECTURES
    if not isinstance(architectures, (list, tuple)) or not {*map(str, architectures)} & {*ARCHITECTURES}:
        raise ValueError(f"{file}: the architecture is {architectures}, but only {', '.join(ARCHITECTURES)} run here")
    hparams = checked_hparams(file, config, CONFIG_KEYS)
    if config.get("n_inner") not in (None, 4 * hparams.n_embd):
        raise ValueError(f"{file}: n_inner is {config['n_inner']!r}, but GPT-2's is 4 * n_embd, {4 * hparams.n_embd}")
    return hparams


def is_tied(folder: Path) -> bool:
    """Whether the output head of the model in a folder is its token embeddings, and need not be in a file."""
    file = folder / "config.json"
    return not file.exists() or bool(read_object(file).get("tie_word_embeddings", True))


def read_special_ids(folder: Path, tokenizer: Tokenizer | None) -> SpecialIds:
    """The tokens that have a use, as transformers finds them: in `generation_config.json` or else `config.json`.

    Where the file that counts says nothing, no token has the use. In OpenAI's layout, `<|endoftext|>` ends and begins
    a text.

    Args:
        folder: the folder.
        tokenizer: its tokenizer; None for a model without a vocabulary.

    Raises:
        ValueError: a file is not JSON, or gives something else than an id, several ids that end a text, or none.
    """
    for file in folder / "generation_config.json", folder / "config.json":
        if file.exists():
            said = read_object(file)
            ends, *others = (token_ids(file, said, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id"))
            return SpecialIds(tuple(ends), *(ids[0] if ids else None for ids in others))
    return default_special_ids(tokenizer)


def token_ids(file: Path, config: dict[str, Any], name: str) -> list[int]:
    """The token ids that a configuration gives a use: one, none or, for `eos_token_id`, several.

    Raises:
        ValueError: it gives something else.
    """
    said = config.get(name)
    ids = said if isinstance(said, list) and name == "eos_token_id" else [] if said is None else [said]
    if not all(type(id) is int for id in ids):
        several = ", or a list of them" if name == "eos_token_id" else ""
        raise ValueError(f"{file}: {name} must be a token id{several}, not {said!r}")
    return ids


def default_special_ids(tokenizer: Tokenizer | None) -> SpecialIds:
    """Those of a model without a configuration: `<|endoftext|>` ends and begins a text, if there is a vocabulary."""
    return SpecialIds((tokenizer.end_of_text,), tokenizer.end_of_text) if tokenizer else SpecialIds()


def check_multiple_choice(folder: Path) -> None:
    """Checks that the multiple-choice head of the model in a folder can be computed here.

    Raises:
        FileNotFoundError: there is no `config.json`.
        ValueError: the head is of another kind.
    """
    file = folder / "config.json"
    check_values(file, read_object(file), MULTIPLE_CHOICE_OPTIONS)


def check_values(file: Path, config: dict[str, Any], options: dict[str, tuple[Any, ...]]) -> None:
    """Checks that each option of a configuration has a value that can be computed here.

    Args:
        file: the file to name in an error message.
        config: its content.
        options: the accepted values of each option, the default first.

    Raises:
        ValueError: an option has another value.
    """
    for name, accepted in options.items():
        if config.get(name, accepted[0]) not in accepted:
            raise ValueError(
                f"{file}: {name} is {config[name]!r}, but only GPT-2's {accepted[0]!r} can be computed here"
            )


def checked_hparams(file: Path, values: dict[str, Any], keys: dict[str, tuple[str, ...]]) -> HParams:
    """Picks the hyperparameters from the values in a file, and checks them.

    Args:
        file: the file to name in an error message.
        values: its content.
        keys: the names that each hyperparameter may have in the file, the one that counts last.

    Raises:
        ValueError: a value is missing, or `check_hparams` rejects the values.
    """
    said = {name: values[key] for name, names in keys.items() for key in names if key in values}
    if missing := [names[0] for name, names in keys.items() if name not in said]:
        raise ValueError(f"{file} does not say {', '.join(missing)}")
    hparams = HParams(**said)
    try:
        checks.check_hparams(hparams)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return hparams


def is_written_here(file: Path) -> bool:
    """Whether this package wrote a `config.json`.

    The transformers library copies our mark when it loads and saves such a file, but adds its own version.
    """
    try:
        config = read_object(file)
    except ValueError:
        return False
    return config.get("written_by") == WRITTEN_BY and "transformers_version" not in config


def write_configs(
    folder: Path,
    hparams: HParams,
    tokenizer: Tokenizer | None,
    dtype: npt.DTypeLike,
    double_heads: bool = False,
    special_ids: SpecialIds | None = None,
) -> None:
    """Writes what `AutoModel` and `AutoTokenizer` need beside `model.safetensors`: configurations and vocabulary.

    Args:
        folder: the folder, which must exist.
        hparams: the hyperparameters of the model.
        tokenizer: its tokenizer; None for a model without a vocabulary.
        dtype: the dtype of its parameters.
        double_heads: whether it has a multiple-choice head.
        special_ids: the tokens that have a use; by default those of `default_special_ids`.

    Raises:
        OSError: a file cannot be written.
    """
    ends, bos_token_id, pad_token_id = special_ids or default_special_ids(tokenizer)
    config = {
        **{name: accepted[0] for name, accepted in GPT2_OPTIONS.items()},
        "architectures": [DOUBLE_HEADS if double_heads else ARCHITECTURES[0]],
        **{keys[0]: getattr(hparams, name) for name, keys in CONFIG_KEYS.items()},
        "n_inner": None,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "bos_token_id": bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else [*ends] or None,
        **({} if pad_token_id is None else {"pad_token_id": pad_token_id}),
        "use_cache": True,
        "dtype": np.dtype(dtype).name,
        "written_by": WRITTEN_BY,
    }
    write_json(folder / "config.json", config, indent=2)
    if tokenizer is None:
        return
    tokenizer.save(folder, model_max_length=hparams.n_ctx)
