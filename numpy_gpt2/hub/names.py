"""Models that have a name: where each comes from, and its folder on disk.

The released GPT-2 has two doors: under the names of Hugging Face's hub, as safetensors, and under OpenAI's, as the
original TensorFlow checkpoints. The weights are the same. Every other model on the hub is named as it is there,
`owner/name`, and `owner/name@revision` is one version of it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..params import HParams
from ..weights.folder import holds_model
from ..weights.tensorflow import HUB_NAMES
from . import huggingface

EMBEDDED = "tiny"  # a small model that comes with the package
SHAPES = {  # of the models on the hub: n_embd, n_head, n_layer
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 16, 24),
    "gpt2-large": (1280, 20, 36),
    "gpt2-xl": (1600, 25, 48),
    "distilgpt2": (768, 12, 6),
}
ON_HUB = {name: HParams(50257, 1024, *shape) for name, shape in SHAPES.items()}
RELEASED = {**ON_HUB, **{openai: ON_HUB[hub] for openai, hub in HUB_NAMES.items()}}
NAMES = (EMBEDDED, *RELEASED)
OWNERS = dict.fromkeys(ON_HUB, "openai-community") | {"distilgpt2": "distilbert"}  # of the repositories on the hub
REPOSITORY = re.compile(r"(?:(\w[\w.-]*)/)?(\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)  # [owner/]name[@revision]
PAGE = re.compile(r"https://huggingface\.co/([^/]+/[^/]+?)(?:/tree/(.+?))?/?")  # the address of a repository's page

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

    def folder(self, models_dir: str | os.PathLike[str] | None = None) -> Path:
        """The folder into which it is downloaded, which need not exist; `models_dir` as for `models_folder`."""
        path, _, revision = self.name.partition("@")
        return models_folder(models_dir) / (f"{path}@{quote(revision, safe='')}" if revision else path)

    @property
    def twin(self) -> Source | None:
        """The same weights through the other door."""
        other = (HUB_NAMES | {hub: openai for openai, hub in HUB_NAMES.items()}).get(self.name)
        return source(other) if other else None

    def snapshot(self) -> Path | None:
        """The model's folder in the user's Hugging Face cache, if all of it is there."""
        repositories = (self.repository, self.name) if self.repository else ()  # transformers may know it as `gpt2`
        folders = [huggingface.cached(repository, self.revision) for repository in repositories]
        return next((folder for folder in folders if folder and holds_model(folder)), None)


def source(model: str | os.PathLike[str]) -> Source | None:
    """Where a model comes from, given its name; None for the embedded model, a folder, or an unknown name."""
    if not isinstance(model, str) or ".." in model:
        return None
    if model in HUB_NAMES:
        return Source(model)
    if page := PAGE.fullmatch(model):
        model = "@".join(filter(None, page.groups()))
    match = REPOSITORY.fullmatch(model)
    owner, name, revision = match.groups("") if match else ("", "", "")
    owner = owner or OWNERS.get(name, "")
    if not owner:
        return None
    repository = f"{owner}/{name}"
    if revision not in ("", "main"):
        return Source(f"{repository}@{revision}", repository, revision)
    return Source(name if OWNERS.get(name) == owner else repository, repository)


def model_folder(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, which need not exist.

    Args:
        model: a name, such as `gpt2`, `124M` or `owner/name`, or a folder. A string with a path separator that could be
            the name of a repository is a folder if there is one. A string that is not a name is a folder if it has a
            path separator or if there is one.
        models_dir: the folder that holds the models with a name, as for `models_folder`.

    Raises:
        ValueError: the string is neither a name nor a folder.
    """
    if model == EMBEDDED:
        return DATA / EMBEDDED
    is_path = not isinstance(model, str) or bool({os.sep, os.altsep} & {*model})
    if (named := source(model)) and not (is_path and expand(model).is_dir()):
        return named.folder(models_dir)
    if "://" in str(model):
        raise ValueError(f"{model} is not the address of a model: https://huggingface.co/owner/name would be one")
    if not is_path and not (model and Path(model).is_dir()):
        raise ValueError(unknown(str(model)))
    return expand(model)


def unknown(model: str) -> str:
    """What to say about a string that is no model: the names, and the one that is nearest."""
    import difflib  # not needed, and so not imported, when nothing is wrong

    close = difflib.get_close_matches(model.casefold().replace("_", "-"), [name.casefold() for name in NAMES], n=1)
    hint = "".join(f" (did you mean {name!r}?)" for name in NAMES if name.casefold() in close)
    return (
        f"there is no model {model!r}{hint}: the names are {', '.join(NAMES)}, and owner/name for any GPT-2 on "
        f"Hugging Face's hub; a folder is written with a separator, as .{os.sep}{model or 'folder'}"
    )


def locate(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder from which a model is loaded; None if it must be downloaded first.

    A model with a name is looked for in its own folder, in the user's Hugging Face cache, and, through the other door,
    in the same two places.

    Raises:
        ValueError: as for `model_folder`.
    """
    folder, named = model_folder(model, models_dir), source(model)
    if not named or holds_model(folder) or folder.resolve() != named.folder(models_dir).resolve():
        return folder
    for each in filter(None, (named, named.twin)):
        own = each.folder(models_dir)
        if found := own if holds_model(own) else each.snapshot():
            return found
    return None


def is_on_disk(name: str, models_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether every file that is needed to load a model with a name is on disk, through whichever door."""
    return locate(name, models_dir) is not None


def models_folder(models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the models with a name: `models_dir`, else `NUMPY_GPT2_MODELS`, else in the user's cache."""
    chosen = models_dir or os.environ.get("NUMPY_GPT2_MODELS")
    if chosen:
        return expand(chosen)
    if sys.platform == "emscripten":  # Pyodide has its home in memory, and no platformdirs
        return Path.home() / "numpy_gpt2" / "models"
    from platformdirs import user_cache_path

    return user_cache_path("numpy_gpt2", appauthor=False) / "models"


def expand(path: str | os.PathLike[str]) -> Path:
    """A path in which `~` is replaced by the user's home; a `~user` who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError
