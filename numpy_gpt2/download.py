"""The released models: their names, where they are on disk, and how they get there.

python -m numpy_gpt2.download 124M
"""

from __future__ import annotations

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
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("numpy_gpt2", appauthor=False) / "models"


def model_folder(model: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a model, which need not exist.

    Args:
        model: a name, as `124M` or `gpt2`, or a folder. What contains a path separator, or is a
            folder and not a name, is a folder.
        models_dir: where models with a name are, as in `models_folder`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(model, os.PathLike):
        return Path(model)
    name = ALIASES.get(model, model)
    if name == EMBEDDED:
        return Path(__file__).parent / "data" / EMBEDDED
    if name in NAMES:
        return models_folder(models_dir) / name
    if os.sep in model or (os.altsep or os.sep) in model or (model and Path(model).is_dir()):
        return Path(model).expanduser()
    raise ValueError(
        f"there is no model {model!r}: the names are {', '.join(NAMES)} (or {', '.join(ALIASES)}), "
        f"and a folder is written with a {os.sep}, as .{os.sep}{model}"
    )


def is_on_disk(name: str, models_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a model with a name is there, whole: a file gets its name only when it is whole."""
    folder = model_folder(name, models_dir)
    return (folder / "model.safetensors").exists() or all((folder / file).exists() for file in FILES)


def download(name: str, models_dir: str | os.PathLike[str] | None = None, store: str = STORE) -> Path:
    """Fetches what is missing of a released model, and returns its folder.

    Raises:
        OSError: a file cannot be fetched or written. Files that are whole stay.
    """
    import requests

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
        raise OSError(f"{url} cannot be fetched: {error}. Check the network, then try again") from error


def main() -> int:
    """The command line `python -m numpy_gpt2.download`."""
    parser = ArgumentParser(prog="python -m numpy_gpt2.download", description="Fetch a released GPT-2 model.")
    parser.add_argument("name", choices=DOWNLOADABLE, help="the model")
    parser.add_argument("--models-dir", metavar="DIR", help="where the models are (default: the user's cache folder)")
    args = parser.parse_args()
    return run(lambda: print(f"{args.name} is in {download(args.name, args.models_dir)}"))


if __name__ == "__main__":
    sys.exit(main())
