"""The released models: their names, where they are on disk, and how they get there.

python -m numpy_gpt2.download 124M
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .commands import ArgumentParser, run
from .files import write_atomically

if TYPE_CHECKING:
    import requests

EMBEDDED = "tiny"  # a small model that comes with the package
NAMES = (EMBEDDED, "124M", "355M", "774M", "1558M", "distilgpt2")
ALIASES = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}

DOWNLOADABLE = ("124M",)
STORE = "https://openaipublic.blob.core.windows.net/gpt-2/models"
FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    "model.ckpt.data-00000-of-00001",
    "model.ckpt.index",
    "model.ckpt.meta",
    "vocab.bpe",
)
TIMEOUT = 30  # seconds without a sign of life from the server


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
    folder = model_folder(name, models_dir)
    small = all((folder / file).exists() for file in ("hparams.json", "encoder.json", "vocab.bpe"))
    return small and ((folder / "model.safetensors").exists() or any(folder.glob("*.index")))


def download(name: str, models_dir: str | os.PathLike[str] | None = None, store: str = STORE) -> Path:
    """Fetches what is missing of a released model, and returns its folder.

    Raises:
        OSError: a file cannot be fetched or written. Files that are whole stay.
        ValueError: it cannot be downloaded.
    """
    import requests

    name = ALIASES.get(name, name)
    if name not in DOWNLOADABLE:
        raise ValueError(f"{name} cannot be downloaded, only {', '.join(DOWNLOADABLE)}")
    folder = model_folder(name, models_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        for file in FILES:
            if not (folder / file).exists():
                fetch(session, f"{store}/{name}/{file}", folder / file)
    return folder


def fetch(session: requests.Session, url: str, file: Path) -> None:
    """Fetches one file, whole or not at all.

    Raises:
        OSError: the server cannot be reached, has no such file or breaks off, or the disk is full.
    """
    import requests
    from tqdm import tqdm

    def write(temporary: Path) -> None:
        with (
            session.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response,
            temporary.open("wb") as out,
        ):
            response.raise_for_status()
            size = int(response.headers.get("Content-Length", 0))
            with tqdm(desc=file.name, total=size or None, unit="B", unit_scale=True, unit_divisor=1000) as progress:
                for chunk in response.iter_content(chunk_size=2**20):
                    progress.update(out.write(chunk))
            if size and out.tell() != size:
                raise OSError(f"{url} ended after {out.tell()} of {size} bytes: try again")

    try:
        write_atomically(file, write)
    except requests.RequestException as error:
        if error.response is not None:
            raise OSError(f"{url}: the server answers {error.response.status_code} {error.response.reason}") from error
        raise OSError(f"{url}: no connection, or it broke off; check the network, then try again") from error


def fetch_and_say_where(name: str, models_dir: str | None) -> None:
    """Does what the command line asks for.

    Raises:
        ImportError: what is to be fetched could not be read, because TensorFlow is not installed.
        OSError: as `download`.
    """
    if not is_on_disk(name, models_dir) and not importlib.util.find_spec("tensorflow"):
        raise ImportError(
            f'{name} comes as a TensorFlow checkpoint, to be read once: pip install "numpy_gpt2[weights]"'
        )
    print(f"{name} is in {download(name, models_dir)}")


def main() -> int:
    """The command line `python -m numpy_gpt2.download`."""
    parser = ArgumentParser(prog="python -m numpy_gpt2.download", description="Fetch a released GPT-2 model.")
    parser.add_argument("name", choices=DOWNLOADABLE, type=lambda name: ALIASES.get(name, name), help="the model")
    parser.add_argument(
        "--models-dir",
        metavar="DIR",
        help="where the models are (default: NUMPY_GPT2_MODELS, or a folder in your cache)",
    )
    args = parser.parse_args()
    return run(lambda: fetch_and_say_where(args.name, args.models_dir))


if __name__ == "__main__":
    sys.exit(main())
