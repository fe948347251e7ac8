"""Models that have a name: where each comes from, and its folder on disk.

The released GPT-2 has two doors: under the names of Hugging Face's hub, as safetensors, and under OpenAI's, as the
original TensorFlow checkpoints. The weights are the same. Every other model on the hub is named as it is there,
`owner/name`, and `owner/name@revision` is one version of it.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..weights.folder import holds_model
from . import huggingface
from .files import INDEX, shard_names

log = logging.getLogger(__name__)

EMBEDDED = "tiny"  # a small model that comes with the package
TWINS = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}  # by door, the same weights
PARAMETERS = {  # the number of parameters of each released model; a parameter takes four bytes
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
}
NAMES = (EMBEDDED, *PARAMETERS)
OWNERS = {**dict.fromkeys(TWINS, "openai-community"), "distilgpt2": "distilbert"}  # of the repositories on the hub
REPOSITORY = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)  # owner/name@revision

OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/models"
DATA = Path(__file__).parent.parent / "data"  # the data files of the package


class Source(NamedTuple):
    """Where a model with a name comes from."""

    name: str
    repository: str = ""  # on the hub; empty for one of OpenAI's checkpoints
    revision: str = "main"

    def address(self, base_url: str | None = None) -> str:
        """The address of the folder of its files: at a mirror, if there is one, otherwise where it was released."""
        if base_url:
            return f"{base_url.rstrip('/')}/{self.name}"
        if self.repository:
            return f"{huggingface.endpoint()}/{self.repository}/resolve/{quote(self.revision, safe='')}"
        return f"{OPENAI}/{self.name}"

    @property
    def twin(self) -> Source | None:
        """The same weights through the other door."""
        other = (TWINS | {openai: hub for hub, openai in TWINS.items()}).get(self.name)
        return source(other) if other else None

    def snapshot(self) -> Path | None:
        """The model's folder in the user's Hugging Face cache, if all of it is there."""
        repositories = (self.repository, self.name) if self.repository else ()  # transformers may know it as `gpt2`
        folders = [huggingface.cached(repository, self.revision) for repository in repositories]
        return next((folder for folder in folders if folder and is_whole(folder)), None)


def source(model: str | os.PathLike[str]) -> Source | None:
    """Where a model comes from, given its name; None for the embedded model, a folder, or an unknown name.

    A string that could be the name of a repository on the hub is a folder if a folder of this name exists.
    """
    if not isinstance(model, str):
        return None
    if model in PARAMETERS:
        return Source(model, f"{OWNERS[model]}/{model}" if model in OWNERS else "")
    match = REPOSITORY.fullmatch(model)
    if not match or ".." in model or Path(model).exists():
        return None
    owner, _, name = match[1].partition("/")
    if OWNERS.get(name) == owner and not match[2]:
        return source(name)
    return Source(model, match[1], match[2] or "main")


def model_folder(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, which need not exist.

    Args:
        model: a name, such as `gpt2`, `124M` or `owner/name`, or a folder. A string that is not a name is a folder if
            it contains a path separator or if the folder exists.
        models_dir: the folder that holds the models with a name, as for `models_folder`.

    Raises:
        ValueError: the string is neither a name nor a folder.
    """
    if model == EMBEDDED:
        return DATA / EMBEDDED
    if named := source(model):
        path, _, revision = named.name.partition("@")
        return models_folder(models_dir) / (f"{path}@{quote(revision, safe='')}" if revision else path)
    if isinstance(model, str) and not {os.sep, os.altsep} & {*model} and not (model and Path(model).is_dir()):
        import difflib  # not needed, and so not imported, when nothing is wrong

        close = difflib.get_close_matches(model.casefold().replace("_", "-"), [name.casefold() for name in NAMES], n=1)
        hint = "".join(f"; did you mean {name!r}?" for name in NAMES if name.casefold() in close)
        raise ValueError(
            f"there is no model {model!r}{hint}: the names are {', '.join(NAMES)}, and owner/name for any GPT-2 on "
            f"Hugging Face's hub; a folder is written with a separator, as .{os.sep}{model or 'folder'}"
        )
    return expand(model)


def locate(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder from which a model is loaded; None if it must be downloaded first.

    A model with a name is looked for in its own folder, in the user's Hugging Face cache, and, through the other door,
    in the same two places.

    Raises:
        ValueError: as for `model_folder`.
    """
    folder, named = model_folder(model, models_dir), source(model)
    if not named or is_whole(folder):
        return folder
    for each in filter(None, (named, named.twin)):
        own = model_folder(each.name, models_dir)
        if found := own if is_whole(own) else each.snapshot():
            log.debug("%s is loaded from %s", model, found)
            return found
    return None


def is_on_disk(name: str, models_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether every file that is needed to load a model with a name is on disk, through whichever door."""
    return locate(name, models_dir) is not None


def is_whole(folder: Path) -> bool:
    """Whether a folder has every file that is needed to load a model. Large files are not opened to find out."""
    index = folder / INDEX
    if not holds_model(folder) or (folder / "model.safetensors").exists() or not index.exists():
        return holds_model(folder)
    try:
        return all((folder / name).exists() for name in shard_names(index))
    except ValueError:
        return False


def models_folder(models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the models with a name: `models_dir`, else `NUMPY_GPT2_MODELS`, else in the user's cache."""
    chosen = models_dir or os.environ.get("NUMPY_GPT2_MODELS")
    if chosen:
        return expand(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("numpy_gpt2", appauthor=False) / "models"


def expand(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is replaced by the user's home; a `~user` who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError
