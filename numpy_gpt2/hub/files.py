"""The files of a model: which there are, and whether they are what their names say.

A server that wants a login, or a proxy, may answer every request with a page of its own and status 200. So each file
is opened as far as needed to tell it from such a page, and then those that belong together are compared.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..machine.files import digest, read_object
from ..params import count_params
from ..text.added_tokens import ADDED, CONFIG, ROLES_MAP
from ..text.vocabulary import ONE_FILE, OPENAI, TWO_FILES, read_merges, read_tokens
from ..tokenizer import Tokenizer
from ..weights.config import read_config, read_hparams, read_hparams_file, read_special_ids
from ..weights.folder import INDEX, TENSORS, find_tensors, read_tensors
from ..weights.safetensors import open_file, read_index

OPENAI_DATA = "model.ckpt.data-00000-of-00001"
OPENAI_INDEX = "model.ckpt.index"
OPENAI_FILES = ("hparams.json", *OPENAI, "checkpoint", OPENAI_INDEX, OPENAI_DATA)
HUB_FILES = ("config.json", *TWO_FILES, TENSORS)
VOCABULARY = (*OPENAI, *ONE_FILE, *TWO_FILES)
OPTIONAL = ("generation_config.json", CONFIG, ROLES_MAP, ADDED)

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the end of a checkpoint's index, a table as in LevelDB
MOST = 2**26  # a file that holds no parameters has fewer bytes

GPT2_VOCABULARY = Path(__file__).parent.parent / "data" / "gpt2"
SHA256 = {  # of OpenAI's vocabulary files
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


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
        READERS.get(name, open_file)(file)
        if verify and not is_gpt2s(file, name):
            raise ValueError(f"{name} is not that of GPT-2 (--no-verify accepts others)")
    except ValueError as error:
        reason = str(error).replace(str(file), name).partition(": replace it")[0]
        page = "; the server sent a web page, perhaps to log in" if is_web_page(file) else ""
        raise ValueError(f"{reason}{page}") from error


def is_web_page(file: Path) -> bool:
    """Whether a file begins as HTML does."""
    with file.open("rb") as opened:
        return re.match(rb"(\xef\xbb\xbf)?\s*<", opened.read(1000)) is not None  # perhaps after a byte order mark


def check_pattern(pattern: bytes, file: Path) -> None:
    """Checks a small file of OpenAI's that only TensorFlow can read whole.

    Raises:
        ValueError: the file does not have the pattern that tells it from others.
    """
    if not re.search(pattern, file.read_bytes(), re.MULTILINE):
        raise ValueError(f"{file} is not that of a checkpoint, or is cut short")


READERS: dict[str, Callable[[Path], Any]] = {
    "hparams.json": read_hparams_file,
    "config.json": read_config,
    **dict.fromkeys((OPENAI[0], TWO_FILES[0]), read_tokens),
    **dict.fromkeys((OPENAI[1], TWO_FILES[1]), read_merges),
    "checkpoint": partial(check_pattern, rb'^model_checkpoint_path:\s*"([^"\n]*[/\\])?model\.ckpt"'),
    OPENAI_INDEX: partial(check_pattern, re.escape(TABLE_MAGIC) + rb"\Z"),
    OPENAI_DATA: Path.stat,  # its size is compared by `check_data`
    INDEX: read_index,
    **dict.fromkeys((*OPTIONAL, *ONE_FILE), read_object),
}


def is_gpt2s(file: Path, name: str) -> bool:
    """Whether a file has GPT-2's vocabulary, or the size of it. OpenAI's must be equal byte for byte."""
    if name in ("hparams.json", "config.json"):
        return READERS[name](file).n_vocab == 50257
    if name in SHA256:
        return digest(file, "sha256") == SHA256[name]
    if name == "vocab.json":
        return read_tokens(file) == read_tokens(GPT2_VOCABULARY / "encoder.json")
    return name != "merges.txt" or read_merges(file) == read_merges(GPT2_VOCABULARY / "vocab.bpe")


def complaints(folder: Path, names: Iterable[str], verify: bool) -> dict[str, str]:
    """What is wrong with the files of a model in a folder: those that are missing, or would not load, and why.

    If files do not fit one another, all of them are named, since it is not known which is the wrong one.
    """
    found = {name: problem for name in names if (problem := complaint(check, folder / name, name, verify))}
    vocabulary = [name for name in names if name in VOCABULARY]
    data = [name for name in names if name == OPENAI_DATA]
    safetensors = [name for name in names if name.endswith(".safetensors")]
    shape = [name for name in names if name in ("hparams.json", "config.json")]
    ends = [name for name in names if name == "generation_config.json"]
    groups: tuple[tuple[list[str], Callable[[Path], object]], ...] = (
        (shape and shape + ends, check_configs),
        (vocabulary, Tokenizer.load),
        (data and shape + data, check_data),
        (safetensors and shape + safetensors, load_safetensors),
    )
    for group, load in groups:
        if group and not found.keys() & group and (problem := complaint(load, folder)):
            found |= dict.fromkeys(group, problem)
    return {name: found[name] for name in names if name in found}


def complaint(check: Callable[..., object], *args: object) -> str | None:
    """The message of a check that fails; None if it succeeds."""
    try:
        check(*args)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


def refuse_strays(folder: Path, names: Iterable[str], verify: bool) -> None:
    """Checks that no other file in the folder of a model, such as one of another model, keeps it from loading.

    Args:
        folder: the folder.
        names: the files of the model.
        verify: whether a vocabulary must be GPT-2's.

    Raises:
        ValueError: there is such a file, and without it the files of the model would load.
    """
    own = [name for name in names if not is_large(name)]
    strays = [name for name in READERS if name not in own and not is_large(name) and (folder / name).exists()]
    problem = problem_in_copy(folder, own, strays, verify) if strays else ""
    if not problem or problem_in_copy(folder, own, [], verify):
        return
    single = [name for name in strays if not problem_in_copy(folder, own, [n for n in strays if n != name], verify)]
    culprits = " and ".join(str(folder / name) for name in single[:1] or strays)
    raise ValueError(f"the model in {folder} does not load because of {culprits}, no part of it: remove it ({problem})")


def problem_in_copy(folder: Path, own: Iterable[str], others: Iterable[str], verify: bool) -> str:
    """What would be wrong with the small files of a model if it had a folder with only these others; empty if nothing.

    Args:
        folder: the folder in which all of the files are.
        own: the files of the model that hold no parameters.
        others: the other files.
        verify: whether a vocabulary must be GPT-2's.
    """
    with TemporaryDirectory() as copy:
        for file in (folder / name for name in (*own, *others)):
            if file.exists():
                shutil.copy(file, copy)
        problems = complaints(Path(copy), own, verify)
    return next(iter(problems.values()), "").replace(copy, str(folder))


def check_configs(folder: Path) -> None:
    """Checks the configurations in a folder as loading does.

    Raises:
        FileNotFoundError, ValueError: they do not load.
    """
    read_hparams(folder)
    read_special_ids(folder, None)


def load_safetensors(folder: Path) -> bool:
    """Loads the parameters in a folder, if it has them as safetensors, and returns whether it has.

    Raises:
        FileNotFoundError, ValueError: they do not load.
    """
    file, tensors = find_tensors(folder)
    if tensors:
        read_tensors(file, tensors, read_hparams(folder))
    return bool(tensors)


def is_converted(folder: Path) -> bool:
    """Whether OpenAI's checkpoint in a folder has been converted, and the result loads, so that it is not needed."""
    try:
        return load_safetensors(folder)
    except (ValueError, FileNotFoundError):
        return False


def check_data(folder: Path) -> None:
    """Compares the size of a checkpoint's data with the hyperparameters.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: the sizes differ.
    """
    file = folder / OPENAI_DATA
    n_bytes, expected = file.stat().st_size, sizes(file)
    if n_bytes not in expected:
        raise ValueError(f"{file} has {n_bytes:,} bytes, but must have {expected.start:,}")


def is_large(name: str) -> bool:
    """Whether a file holds parameters."""
    return name == OPENAI_DATA or name.endswith(".safetensors")


def sizes(file: Path) -> range:
    """The sizes in bytes that a file of a model may have, given the configuration beside it if it holds parameters."""
    if file.name == OPENAI_DATA:
        exact = 4 * count_params(read_hparams_file(file.with_name("hparams.json")))
        return range(exact, exact + 1)
    if not is_large(file.name):
        return range(MOST)
    hparams = read_config(file.with_name("config.json"))
    return range(MOST + 8 * (2 * count_params(hparams) + hparams.n_layer * hparams.n_ctx**2))  # with head and masks
