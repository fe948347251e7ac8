"""Which models are on disk, where, and what could be deleted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from ..params import count_params
from ..weights.folder import holds_model
from . import files
from .download import in_bytes
from .names import RELEASED, Source, model_folder, models_folder, source


def describe_models(names: Iterable[str], models_dir: str | None = None) -> str:
    """A line about each model, and then about the files that could be deleted, since the same weights are there twice.

    Raises:
        ValueError: there is no model of one of the names.
    """
    lines = [describe(name, models_dir) for name in names]
    spare = [spare_files(named, models_dir) for name in names if (named := source(name)) and not named.repository]
    return "\n".join([*lines, *filter(None, spare)])


def repositories(models_dir: str | None = None) -> list[str]:
    """The names of the models that have been fetched from the hub as `owner/name`, with or without a revision."""
    folder = models_folder(models_dir)
    paths = [file.parent.relative_to(folder).as_posix() for file in sorted(folder.glob("*/*/config.json"))]
    found = [unquote(path) for path in paths if path.partition("/")[0] not in RELEASED]
    return [name for name in found if (named := source(name)) and named.name == name]


def describe(name: str, models_dir: str | None) -> str:
    """A line about a model: its size and folder if it is on disk, otherwise the size of the download."""
    named = source(name)
    folder = named.folder(models_dir) if named else model_folder(name)
    if named and not holds_model(folder):
        folder = named.snapshot() or folder
    size = size_of(folder)
    if holds_model(folder):
        return f"{name:<12}{in_bytes(size):>8}  {folder}"
    if size:
        hint = f"not complete; `numpy-gpt2 download {name}` resumes the download"
        return f"{name:<12}{in_bytes(size):>8}  {folder} ({hint})"
    amount = in_bytes(download_size(named)) if named and named.name in RELEASED else "a model"
    through = "" if named and named.repository else ", with TensorFlow"
    return f"{name:<12}{'-':>8}  {amount} to download{through}"


def download_size(named: Source) -> int:
    """The size of the weights of a released model, in bytes. The hub's files hold a mask for each block as well."""
    hparams = RELEASED[named.name]
    masks = hparams.n_layer * hparams.n_ctx**2 if named.repository else 0
    return 4 * (count_params(hparams) + masks)


def spare_files(named: Source, models_dir: str | None) -> str:
    """A line that says what could be deleted of one of OpenAI's models; empty if nothing could."""
    folder, twin = named.folder(models_dir), named.twin
    if not holds_model(folder) or not twin:
        return ""
    for other in filter(None, (twin.folder(models_dir), twin.snapshot())):
        if files.complaint(files.load_safetensors, other) is None and holds_model(other):
            return (
                f"could be deleted: {folder} ({in_bytes(size_of(folder))}), the same weights as {twin.name} in {other}"
            )
    checkpoint = size_of(folder, "model.ckpt.*")
    if not checkpoint or not files.is_converted(folder):
        return ""
    size = in_bytes(checkpoint)
    return f"could be deleted: {folder / 'model.ckpt.*'} ({size}), converted to model.safetensors beside them"


def size_of(folder: Path, pattern: str = "*") -> int:
    """The size of the files in a folder, in bytes, without the one that locks it."""
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file() and file.name != ".lock")
