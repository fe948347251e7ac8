"""Downloads a model: asks for its files, fetches those that are missing or would not load, and checks what arrives."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from ..machine.files import locked
from ..text.added_tokens import CONFIG
from ..text.vocabulary import ONE_FILE, OPENAI, TWO_FILES
from ..tokenizer import Tokenizer
from ..weights.config import is_written_here
from ..weights.folder import INDEX, TENSORS, holds_model
from ..weights.safetensors import read_index
from ..weights.tensorflow import check_tensorflow
from . import files, huggingface
from .names import RELEASED, Source, locate, source

if TYPE_CHECKING:
    from .fetch import Fetcher

log = logging.getLogger(__name__)


def locate_or_download(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, as `names.locate` finds it. A model with a name is downloaded first if it is not on disk.

    Raises:
        ImportError, OSError, ValueError: as for `locate` and `download`.
    """
    return locate(model, models_dir) or download(str(model), models_dir)


@contextlib.contextmanager
def repair_advised(
    model: str | os.PathLike[str], folder: Path, models_dir: str | os.PathLike[str] | None = None
) -> Iterator[None]:
    """Within this context, the message of an error also says how to repair the model, where `download` does so.

    Args:
        model: a name, or a folder.
        folder: the folder from which it is loaded.
        models_dir: as for `download`.

    Raises:
        FileNotFoundError, ValueError: as the error.
    """
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        named = source(model)
        if not named or not named.repository or folder != named.folder(models_dir):
            raise
        if named.name in RELEASED:
            files.refuse_strays(folder, needed(named, folder), verify=True)
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        where = f" --models-dir {models_dir}" if models_dir else ""
        raise kind(f"{error}; `numpy-gpt2 download {named.name}{where}` repairs it") from error


def download(
    name: str,
    models_dir: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    verify: bool = True,
    fetcher: Fetcher | None = None,
) -> Path:
    """Downloads the files of a model that are missing, or would not load.

    Intact files are not downloaded again. An interrupted download is resumed. A model that is in the user's Hugging
    Face cache is not downloaded, unless `models_dir` or `base_url` is given.

    Args:
        name: the name of the model.
        models_dir: the folder that holds the models with a name, as for `models_folder`.
        base_url: a mirror, which has the files at `<base_url>/<name>/<file>`; by default `NUMPY_GPT2_BASE_URL`,
            else the address at which the model was released.
        verify: whether the vocabulary must be GPT-2's, as that of every released model is.
        fetcher: what fetches the files; by default a new `Fetcher`, which knows the user's token for the hub.

    Returns:
        The folder of the model.

    Raises:
        ImportError: the model is a TensorFlow checkpoint, and TensorFlow is not installed or does not work.
        OSError: a file cannot be fetched or written, or the disk has too little room for all of them.
        ValueError: no model of this name can be downloaded, it is not a GPT-2, the server sends something else, or a
            file of another model in the folder keeps it from loading.
    """
    named = source(name)
    if not named:
        raise ValueError(f"{name} cannot be downloaded, only {', '.join(RELEASED)}, and owner/name from the hub")
    folder = named.folder(models_dir)
    verify = verify and named.name in RELEASED
    if is_intact(named, folder, verify):
        return folder
    if not named.repository:
        remove_damaged_vocabulary(folder)
    if named.name in RELEASED:
        files.refuse_strays(folder, needed(named, folder), verify)
    snapshot = None if models_dir or base_url else named.snapshot()
    if snapshot and not files.complaints(snapshot, files_in(snapshot), verify):
        return snapshot
    if not named.repository and not files.is_converted(folder):
        check_tensorflow(name, name)
    if sys.platform == "emscripten":
        raise OSError(f"{name} is not in this browser, and Pyodide cannot download it: load it from a folder")
    from .fetch import Fetcher

    fetcher = fetcher or Fetcher(token=huggingface.token(), token_for=huggingface.endpoint())
    base = named.address(base_url or os.environ.get("NUMPY_GPT2_BASE_URL"))
    run(Job(named, folder, base, verify, fetcher))
    return folder


class Job(NamedTuple):
    """What to download, and how."""

    named: Source
    folder: Path
    base: str  # the address of the folder with the files
    verify: bool  # whether a vocabulary must be GPT-2's
    fetcher: Fetcher


def run(job: Job) -> None:
    """Fetches a model into its folder.

    Raises:
        OSError, ValueError: as for `download`.
    """
    named, folder = job.named, job.folder
    on_hub = () if named.name in RELEASED else look_up(job)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            names = on_hub or needed(named, folder)
            if missing := files.complaints(folder, names, job.verify):  # no other process has fetched them meanwhile
                announce(job, missing)
            received: dict[str, bool] = {}
            fetch_files(job, [name for name in names if not files.is_large(name)], received)
            fetch_files(job, names, received)
            if is_damaged_conversion(named, folder):
                file = folder / TENSORS
                log.warning("%s does not load, and is removed: the next use makes it again from the checkpoint", file)
                file.unlink()
    except KeyboardInterrupt:
        log.warning("stopped; the partial download of %s is kept, and the next download resumes it", named.name)
        raise


def announce(job: Job, names: Iterable[str]) -> None:
    """Asks the server about files, checks that the disk has room for them, and says how much will be fetched.

    Raises:
        OSError: a file cannot be fetched, or the disk has too little room.
    """
    from .fetch import part_file

    size = 0
    for name in names:
        remote = job.fetcher.ask(f"{job.base}/{name}")
        part = part_file(f"{job.base}/{name}", job.folder / name, remote)
        n_received = part.stat().st_size if part.exists() else 0
        size += max(0, (remote.size or 0) - n_received)
    free = shutil.disk_usage(job.folder).free
    if size > free:
        raise OSError(
            f"{job.folder} has room for {in_bytes(free)}, but {in_bytes(size)} of {job.named.name} are still to be "
            "downloaded: make room, or choose another folder with --models-dir"
        )
    amount = in_bytes(size) if size else "the missing files"  # the server may not give a size
    log.warning("fetching %s of %s from %s to %s", amount, job.named.name, job.base, job.folder)


def fetch_files(job: Job, names: Sequence[str], received: dict[str, bool]) -> None:
    """Fetches files until all of them are there, and load together. If they do not, those that are new are removed.

    Args:
        job: the job.
        names: the files.
        received: the files that the job has fetched so far, and whether each is new; the others are added.

    Raises:
        OSError, ValueError: as for `download`.
    """
    while bad := files.complaints(job.folder, names, job.verify):
        files.refuse_strays(job.folder, names, job.verify)
        new = [name for name in bad if name not in received]
        if not new:
            for name, is_new in received.items():
                if is_new:
                    (job.folder / name).unlink()
            raise ValueError(f"{job.base} has no model that loads here: {next(iter(bad.values()))}")
        received |= {name: fetch_file(job, name) for name in new}


def fetch_file(job: Job, name: str) -> bool:
    """Fetches and checks one file, and returns whether it was not there before.

    Raises:
        OSError, ValueError: as for `Fetcher.fetch`.
    """
    file, check = job.folder / name, partial(files.check, name=name, verify=job.verify)
    return job.fetcher.fetch(f"{job.base}/{name}", file, files.sizes(file), check)


# Which files


def needed(named: Source, folder: Path) -> Sequence[str]:
    """The files of a released model, some of which may be missing in its folder.

    Once OpenAI's checkpoint has been converted, its files need not be there; those that are must be intact.
    """
    if named.repository:
        return files.HUB_FILES
    if not files.is_converted(folder):
        return files.OPENAI_FILES
    return (*files.OPENAI_FILES[:3], *(name for name in files.OPENAI_FILES[3:] if (folder / name).exists()))


def files_in(folder: Path) -> list[str]:
    """The files in a folder that `files.check` knows."""
    return [
        file.name for file in sorted(folder.iterdir()) if file.name in files.READERS or file.suffix == ".safetensors"
    ]


def is_intact(named: Source, folder: Path, verify: bool) -> bool:
    """Whether a model is in its folder, and would load."""
    if named.name in RELEASED:
        return not files.complaints(folder, needed(named, folder), verify) and not is_damaged_conversion(named, folder)
    return holds_model(folder) and not files.complaints(folder, files_in(folder), verify)


def is_damaged_conversion(named: Source, folder: Path) -> bool:
    """Whether a folder of one of OpenAI's models has a damaged `model.safetensors`, made from the checkpoint."""
    is_there = not named.repository and (folder / TENSORS).exists()
    return is_there and files.complaint(files.load_safetensors, folder) is not None


def remove_damaged_vocabulary(folder: Path) -> None:
    """Removes the files that a conversion wrote beside OpenAI's vocabulary, if they keep it from loading."""
    config = folder / "config.json"
    if not config.exists() or not is_written_here(config) or files.problem_in_copy(folder, OPENAI, (), verify=False):
        return
    if files.complaint(Tokenizer.load, folder):
        for file in (folder / name for name in (*TWO_FILES, CONFIG) if (folder / name).exists()):
            log.warning("%s does not load, and is removed: the vocabulary is there in OpenAI's files, too", file)
            file.unlink()


def look_up(job: Job) -> list[str]:
    """The files that a repository on the hub has for `load`. Nothing is kept of those that are fetched to find out.

    Raises:
        OSError: there is no such repository, or not for this user; or a file cannot be fetched.
        ValueError: the repository has no GPT-2, no vocabulary, or no safetensors.
    """
    try:
        job.fetcher.ask(f"{job.base}/config.json")
    except OSError as error:
        raise OSError(f"{job.named.name} is not a folder here, and cannot be had from the hub: {error}") from error
    with TemporaryDirectory() as folder:
        return files_on_hub(job._replace(folder=Path(folder)))


def files_on_hub(job: Job) -> list[str]:
    """The files that a repository on the hub has for `load`. Those that decide about it are fetched.

    Raises:
        OSError, ValueError: as for `look_up`.
    """

    def has(name: str) -> bool:
        try:
            job.fetcher.ask(f"{job.base}/{name}")
        except FileNotFoundError:
            return False
        return True

    fetch_file(job, "config.json")
    vocabulary = next((layout for layout in (ONE_FILE, TWO_FILES) if all(map(has, layout))), None)
    if not vocabulary:
        raise ValueError(f"{job.base} has no vocabulary: neither tokenizer.json nor vocab.json and merges.txt")
    names = ["config.json", *filter(has, files.OPTIONAL), *vocabulary]
    if has(TENSORS):
        return [*names, TENSORS]
    if not has(INDEX):
        raise ValueError(
            f"{job.base} has no {TENSORS}; transformers (from_pretrained, then save_pretrained) can make one "
            "from a pickle, which is not opened here, since it can run any program"
        )
    fetch_file(job, INDEX)
    return [*names, INDEX, *sorted({*read_index(job.folder / INDEX).values()})]


def in_bytes(n: int) -> str:
    """A number of bytes in a form for people, such as 1.42GB."""
    from tqdm import tqdm

    return f"{tqdm.format_sizeof(n)}B"
