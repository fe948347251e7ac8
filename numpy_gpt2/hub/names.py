"""The names of the released models, and their folders on disk."""

from __future__ import annotations

import os
from pathlib import Path

from ..weights.folder import holds_model

EMBEDDED = "tiny"  # a small model that comes with the package
ALIASES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
PARAMETERS = {  # the number of parameters of each model that can be downloaded; a parameter takes four bytes
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
    "distilgpt2": 81_912_576,
}
NAMES = (EMBEDDED, *PARAMETERS)

DATA = Path(__file__).parent.parent / "data"  # the data files of the package


def model_folder(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, which need not exist.

    Args:
        model: a name, such as `124M` or `gpt2`, or a folder. A string that is not a name is a folder if it
            contains a path separator or if the folder exists.
        models_dir: the folder that holds the released models, as for `models_folder`.

    Raises:
        ValueError: the string is neither a name nor a folder.
    """
    name = model_name(model)
    if name == EMBEDDED:
        return DATA / EMBEDDED
    if name:
        return models_folder(models_dir) / name
    if isinstance(model, str) and not {os.sep, os.altsep} & {*model} and not (model and Path(model).is_dir()):
        raise ValueError(
            f"there is no model {model!r}: the names are {', '.join((*NAMES, *ALIASES))}; "
            f"a folder is written with a separator, as .{os.sep}{model or 'folder'}"
        )
    return expand(model)


def model_name(model: str | os.PathLike[str]) -> str | None:
    """The name of a released model, given its name or an alias; None for a folder or an unknown name."""
    name = ALIASES.get(model, model) if isinstance(model, str) else None
    return name if name in NAMES else None


def models_folder(models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the released models: `models_dir`, else `NUMPY_GPT2_MODELS`, else in the user's cache."""
    chosen = models_dir or os.environ.get("NUMPY_GPT2_MODELS")
    if chosen:
        return expand(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("numpy_gpt2", appauthor=False) / "models"


def is_on_disk(name: str, models_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether every file that is needed to load a released model is on disk."""
    return holds_model(model_folder(name, models_dir))


def expand(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is replaced by the user's home; a `~user` who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError
