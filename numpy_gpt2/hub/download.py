"""Downloads a released model: which files it has, where they come from, and whether they are intact."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine.files import digest, locked
from ..params import count_params
from ..text.vocabulary import read_merges, read_tokens
from ..weights.config import read_config, read_hparams_file
from ..weights.folder import read_tensors
from ..weights.safetensors import open_file
from ..weights.tensorflow import check_tensorflow
from .names import ALIASES, DATA, PARAMETERS, is_on_disk, model_folder

if TYPE_CHECKING:
    from .fetch import Fetcher

log = logging.getLogger(__name__)

OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/models"
OPENAI_DATA = "model.ckpt.data-00000-of-00001"
OPENAI_FILES = (
    "hparams.json",
    "encoder.json",
    "vocab.bpe",
    "checkpoint",
    "model.ckpt.index",
    "model.ckpt.meta",
    OPENAI_DATA,
)
HUB = "https://huggingface.co/distilbert/distilgpt2/resolve/main"
HUB_FILES = ("config.json", "vocab.json", "merges.txt", "model.safetensors")

GPT2_VOCABULARY = DATA / "gpt2"
SHA256 = {  # of OpenAI's vocabulary files
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def download(
    name: str,
    models_dir: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    verify: bool = True,
    fetcher: Fetcher | None = None,
) -> Path:
    """Downloads the missing files of a released model.

    Complete files are not downloaded again. An interrupted download is resumed.

    Args:
        name: the name of the model.
        models_dir: the folder that holds the released models, as for `models_folder`.
        base_url: a mirror, which has the files at `<base_url>/<name>/<file>`; by default `NUMPY_GPT2_BASE_URL`,
            else the address at which the model was released.
        verify: whether the vocabulary must be GPT-2's, as that of every released model is.
        fetcher: what fetches the files; by default a new `Fetcher`.

    Returns:
        The folder of the model.

    Raises:
        ImportError: the model is a TensorFlow checkpoint, and TensorFlow is not installed or does not work.
        OSError: a file cannot be fetched or written, or the disk has too little room for all of them.
        ValueError: no model of this name can be downloaded, or the server sends something else.
    """
    name = ALIASES.get(name, name)
    if name not in PARAMETERS:
        raise ValueError(f"{name} cannot be downloaded, only {', '.join(PARAMETERS)}")
    folder = model_folder(name, models_dir)
    missing = missing_files(name, folder, verify)
    if OPENAI_DATA in missing:
        check_tensorflow(name)
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder):
                fetch_missing(name, folder, base_url or os.environ.get("NUMPY_GPT2_BASE_URL"), verify, fetcher)
        except KeyboardInterrupt:
            log.warning("stopped; the partial download of %s is kept, and the next download resumes it", name)
            raise
    return folder


def fetch_missing(name: str, folder: Path, base_url: str | None, verify: bool, fetcher: Fetcher | None) -> None:
    """Fetches the missing files of a model into its folder, which must be locked, if the disk has room for them.

    Raises:
        OSError, ValueError: as for `download`.
    """
    from .fetch import Fetcher, part_file

    fetcher = fetcher or Fetcher()
    urls = {file: address(name, file, base_url) for file in missing_files(name, folder, verify)}
    if not urls:  # another process has downloaded them in the meantime
        return
    size = 0
    for file, url in urls.items():
        remote = fetcher.ask(url)
        part = part_file(url, folder / file, remote)
        n_received = part.stat().st_size if part.exists() else 0
        size += max(0, (remote.size or 0) - n_received)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"{folder} has room for {in_bytes(free)}, but {in_bytes(size)} of {name} are still to be downloaded: "
            "make room, or choose another folder with --models-dir"
        )
    amount = in_bytes(size) if size else "the missing files"  # the server may not give a size
    log.warning("fetching %s of %s from %s to %s", amount, name, url.rpartition("/")[0], folder)
    for file, url in urls.items():
        fetcher.fetch(url, folder / file, expected_size(folder / file), partial(check, name=file, verify=verify))


def missing_files(name: str, folder: Path, verify: bool) -> list[str]:
    """The files of a model that are missing or incomplete."""
    return [file for file in files_of(name, folder) if not is_complete(folder / file, verify)]


def files_of(name: str, folder: Path) -> tuple[str, ...]:
    """The files that make up a model. Once OpenAI's checkpoint has been converted, it is no longer among them."""
    if name == "distilgpt2":
        return HUB_FILES
    return OPENAI_FILES[:3] if (folder / "model.safetensors").exists() else OPENAI_FILES


def address(name: str, file: str, base_url: str | None) -> str:
    """The URL of a file: at a mirror, if there is one, otherwise where the model was released."""
    if base_url:
        return f"{base_url.rstrip('/')}/{name}/{file}"
    return f"{HUB}/{file}" if name == "distilgpt2" else f"{OPENAI}/{name}/{file}"


def is_complete(file: Path, verify: bool) -> bool:
    """Whether a file exists and `check` accepts it, so that it need not be fetched."""
    if not file.exists() or expected_size(file) not in (None, file.stat().st_size):
        return False
    try:
        check(file, file.name, verify)
    except ValueError:
        return False
    return True


def expected_size(file: Path) -> int | None:
    """The size that a file must have, in bytes, if the files beside it determine it."""
    if file.name != OPENAI_DATA:
        return None
    try:
        return 4 * count_params(read_hparams_file(file.with_name("hparams.json")))
    except (ValueError, FileNotFoundError):
        return None


def check(file: Path, name: str, verify: bool) -> None:
    """Checks the content of a file, as far as that is possible without reading all of a large one.

    Args:
        file: the file, which may still have a temporary name.
        name: its final name, which determines what it must hold.
        verify: whether a vocabulary must be GPT-2's.

    Raises:
        ValueError: the file is not what its name says.
    """
    try:
        if name == "hparams.json":
            read_hparams_file(file)
        elif name == "config.json":
            read_config(file)
        elif name == "model.safetensors":
            _, tensors = open_file(file)
            if file.with_name("config.json").exists():
                read_tensors(file, tensors, read_config(file.with_name("config.json")))
        elif name in ("encoder.json", "vocab.json"):
            read_tokens(file)
        elif name in ("vocab.bpe", "merges.txt"):
            read_merges(file)
        if verify and not is_gpt2s(file, name):
            raise ValueError(f"{name} is not that of GPT-2 (--no-verify accepts others)")
    except ValueError as error:
        reason = str(error).replace(str(file), name).partition(": replace it")[0]
        raise ValueError(f"{reason}; did the server send a login page or another model?") from error


def is_gpt2s(file: Path, name: str) -> bool:
    """Whether a vocabulary file is GPT-2's. OpenAI's files must be equal byte for byte, the hub's in content."""
    if name in SHA256:
        return digest(file, "sha256") == SHA256[name]
    if name == "vocab.json":
        return read_tokens(file) == read_tokens(GPT2_VOCABULARY / "encoder.json")
    return name != "merges.txt" or read_merges(file) == read_merges(GPT2_VOCABULARY / "vocab.bpe")


def describe_models(names: Iterable[str], models_dir: str | None = None) -> str:
    """A table of models: for each, its size and folder if it is on disk, otherwise the size of the download."""
    lines = []
    for name in names:
        folder = model_folder(name, models_dir)
        files = [file for file in folder.glob("*") if file.is_file() and file.name != ".lock"]
        size = in_bytes(sum(file.stat().st_size for file in files))
        if is_on_disk(name, models_dir):
            lines.append(f"{name:<12}{size:>8}  {folder}")
        elif files:
            lines.append(
                f"{name:<12}{size:>8}  {folder} (not complete; `numpy-gpt2 download {name}` resumes the download)"
            )
        else:
            lines.append(f"{name:<12}{'-':>8}  {in_bytes(4 * PARAMETERS[name])} of weights to download")
    return "\n".join(lines)


def in_bytes(n: int) -> str:
    """A number of bytes in a form for people, such as 1.42GB."""
    from tqdm import tqdm

    return f"{tqdm.format_sizeof(n)}B"
