"""The released models: their names, where they are on disk, and how they get there.

python -m numpy_gpt2.download 124M
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoints import holds_model, read_tensors
from .commands import ArgumentParser, log_to_standard_error, run
from .configs import read_config, read_hparams_file
from .files import digest, locked
from .params import number_of_params
from .safetensors_format import open_file
from .tensorflow_format import check_tensorflow
from .vocabulary import read_merges, read_tokens

if TYPE_CHECKING:
    from .fetch import Fetcher

log = logging.getLogger(__name__)

EMBEDDED = "tiny"  # a small model that comes with the package
ALIASES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
PARAMETERS = {  # the models that can be downloaded, with the number of their parameters, four bytes each
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
    "distilgpt2": 81_912_576,
}
NAMES = (EMBEDDED, *PARAMETERS)

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

GPT2_VOCABULARY = Path(__file__).parent / "data" / "gpt2"
SHA256 = {  # of OpenAI's two files
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


# Where models are


def models_folder(models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that the models are in: `models_dir`, else `NUMPY_GPT2_MODELS`, else in the user's cache."""
    chosen = models_dir or os.environ.get("NUMPY_GPT2_MODELS")
    if chosen:
        return expand(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("numpy_gpt2", appauthor=False) / "models"


def model_name(model: str | os.PathLike[str]) -> str | None:
    """The name that a name or an alias stands for; None if it is neither, but a folder or nothing known."""
    name = ALIASES.get(model, model) if isinstance(model, str) else None
    return name if name in NAMES else None


def model_folder(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, which need not exist.

    Args:
        model: a name, as `124M` or `gpt2`, or a folder. What contains a path separator, or is a
            folder and not a name, is a folder.
        models_dir: where models with a name are, as in `models_folder`.

    Raises:
        ValueError: it is neither.
    """
    name = model_name(model)
    if name == EMBEDDED:
        return Path(__file__).parent / "data" / EMBEDDED
    if name:
        return models_folder(models_dir) / name
    if isinstance(model, str) and not {os.sep, os.altsep} & {*model} and not (model and Path(model).is_dir()):
        raise ValueError(
            f"there is no model {model!r}: the names are {', '.join((*NAMES, *ALIASES))}; "
            f"a folder is written with a separator, as .{os.sep}{model or 'folder'}"
        )
    return expand(model)


def expand(path: str | os.PathLike[str]) -> Path:
    """A path with `~` replaced by the user's home; a `~user` that does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError


def is_on_disk(name: str, models_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether all that is needed to load a model with a name is there."""
    return holds_model(model_folder(name, models_dir))


# How they get there


def download(
    name: str,
    models_dir: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
    verify: bool = True,
    fetcher: Fetcher | None = None,
) -> Path:
    """Fetches what is missing of a released model, and returns its folder.

    Files that are there and whole are not fetched again, and half a file is gone on with.

    Args:
        name: the model.
        models_dir: where models are, as in `models_folder`.
        base_url: where to fetch from, if not where the model was released: its files are at
            `<base_url>/<name>/<file>`.
        verify: whether the vocabulary must be GPT-2's, as in every released model.
        fetcher: the connection to use.

    Raises:
        ImportError: what is to be fetched could not be read, because TensorFlow does not work.
        OSError: a file cannot be fetched or written, or there is not enough room for all of them.
        ValueError: there is no such model to download, or the server has something else under its name.
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
            log.warning("stopped; what has arrived of %s is kept, and the next download goes on from there", name)
            raise
    return folder


def fetch_missing(name: str, folder: Path, base_url: str | None, verify: bool, fetcher: Fetcher | None) -> None:
    """Fetches what is missing of a model into its folder, which is locked, if there is room for it.

    Raises:
        OSError, ValueError: as `download`.
    """
    from .fetch import Fetcher, part_file

    fetcher = fetcher or Fetcher()
    urls = {file: address(name, file, base_url) for file in missing_files(name, folder, verify)}
    if not urls:  # another process was faster
        return
    size = 0
    for file, url in urls.items():
        remote = fetcher.ask(url)
        part = part_file(url, folder / file, remote)
        arrived = part.stat().st_size if part.exists() else 0
        size += max(0, (remote.size or 0) - arrived)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"{folder} has room for {in_bytes(free)}, but {in_bytes(size)} of {name} are to come: make room, or choose "
            "another folder with --models-dir"
        )
    what = in_bytes(size) if size else "what is missing"  # the server does not say
    log.warning("fetching %s of %s from %s to %s", what, name, url.rpartition("/")[0], folder)
    for file, url in urls.items():
        fetcher.fetch(url, folder / file, expected_size(folder / file), partial(check, name=file, verify=verify))


def missing_files(name: str, folder: Path, verify: bool) -> list[str]:
    """The files of a model that are still to be fetched."""
    return [file for file in files_of(name, folder) if not is_whole(folder / file, verify)]


def files_of(name: str, folder: Path) -> tuple[str, ...]:
    """The files that make up a model: where it has been converted, without OpenAI's checkpoint."""
    if name == "distilgpt2":
        return HUB_FILES
    return OPENAI_FILES[:3] if (folder / "model.safetensors").exists() else OPENAI_FILES


def address(name: str, file: str, base_url: str | None) -> str:
    """Where a file of a model is on the network."""
    if base_url:
        return f"{base_url.rstrip('/')}/{name}/{file}"
    return f"{HUB}/{file}" if name == "distilgpt2" else f"{OPENAI}/{name}/{file}"


def is_whole(file: Path, verify: bool) -> bool:
    """Whether a file is there and is what it should be, so that it need not be fetched."""
    if not file.exists() or expected_size(file) not in (None, file.stat().st_size):
        return False
    try:
        check(file, file.name, verify)
    except ValueError:
        return False
    return True


def expected_size(file: Path) -> int | None:
    """The length that a file must have, in bytes, if that is known from those beside it."""
    if file.name != OPENAI_DATA:
        return None
    try:
        return 4 * number_of_params(read_hparams_file(file.with_name("hparams.json")))
    except (ValueError, FileNotFoundError):
        return None


def check(file: Path, name: str, verify: bool) -> None:
    """Checks the content of a file, as far as that is possible without reading all of a large one.

    Args:
        file: the file, which may still have a temporary name.
        name: which of a model's files it is.
        verify: whether a vocabulary must be GPT-2's.

    Raises:
        ValueError: it is not what its name says.
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
        raise ValueError(f"{reason}; has a login page or another model come in its place?") from error


def is_gpt2s(file: Path, name: str) -> bool:
    """Whether a file of a vocabulary is that of GPT-2: OpenAI's to the byte, the hub's in what it says."""
    if name in SHA256:
        return digest(file, "sha256") == SHA256[name]
    if name == "vocab.json":
        return read_tokens(file) == read_tokens(GPT2_VOCABULARY / "encoder.json")
    return name != "merges.txt" or read_merges(file) == read_merges(GPT2_VOCABULARY / "vocab.bpe")


# The command


def describe_models(names: Iterable[str], models_dir: str | None) -> str:
    """A table of models: which are on disk, how large they are, and where."""
    lines = []
    for name in names:
        folder = model_folder(name, models_dir)
        files = [file for file in folder.glob("*") if file.is_file() and file.name != ".lock"]
        size = in_bytes(sum(file.stat().st_size for file in files))
        if is_on_disk(name, models_dir):
            lines.append(f"{name:<12}{size:>8}  {folder}")
        elif files:
            lines.append(f"{name:<12}{size:>8}  {folder} (not complete; download.py goes on from there)")
        else:
            lines.append(f"{name:<12}{'-':>8}  {in_bytes(4 * PARAMETERS[name])} of weights to download")
    return "\n".join(lines)


def in_bytes(n: int) -> str:
    """A number of bytes, to be read by people."""
    from tqdm import tqdm

    return f"{tqdm.format_sizeof(n)}B"


def parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="python -m numpy_gpt2.download",
        description="Fetch released GPT-2 models. What is there already is not fetched again; what was interrupted "
        "goes on where it stopped.",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"{', '.join(NAMES)}, another name that Hugging Face has for one ({', '.join(ALIASES)}), or all",
    )
    parser.add_argument("--list", action="store_true", help="only show which models are on disk, how large, and where")
    parser.add_argument(
        "--models-dir",
        metavar="DIR",
        help="where the models are (default: NUMPY_GPT2_MODELS, or a folder in your cache)",
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="a mirror to fetch from, which has the files at URL/NAME/FILE (default: NUMPY_GPT2_BASE_URL, or where "
        "the models were released)",
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="accept other vocabularies than GPT-2's, from a mirror of other models",
    )
    return parser


def names_in(args: argparse.Namespace) -> list[str]:
    """The models that a command line names, each once.

    Raises:
        ValueError: there are none, or there is no such model.
    """
    given = [*PARAMETERS] if "all" in args.names else [ALIASES.get(name, name) for name in args.names]
    if unknown := [name for name in given if name not in NAMES]:
        raise ValueError(f"there is no model {unknown[0]!r}: the names are {', '.join((*NAMES, *ALIASES))}, all")
    if not given and not args.list:
        raise ValueError(f"name a model ({', '.join(NAMES)}, or all)")
    return list(dict.fromkeys(given))


def fetch_and_say_where(names: list[str], args: argparse.Namespace) -> None:
    """Downloads models."""
    for name in names:
        if name != EMBEDDED:
            download(name, args.models_dir, args.base_url, args.verify)
        print(f"{name} is in {model_folder(name, args.models_dir)}", flush=True)


def main() -> int:
    """The command line `python -m numpy_gpt2.download`."""
    options = parser()
    args = options.parse_args()
    try:
        names = names_in(args)
    except ValueError as error:
        options.error(str(error))
    log_to_standard_error()
    if args.list:
        return run(lambda: print(describe_models(names or NAMES, args.models_dir)))
    return run(lambda: fetch_and_say_where(names, args))


if __name__ == "__main__":
    sys.exit(main())
