"""Writes the page as static files, for a browser that runs this package itself: by Pyodide, in a worker.

All files are in one folder: those of `static/`, the package in an archive, the files of a model that is not the
embedded one, Pyodide unless it comes from elsewhere, and `export.json`, which says what there is. `index.html` comes
last, so that there is no page before it is whole.
"""

from __future__ import annotations

import html
import importlib.resources
import io
import re
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from .. import __version__
from ..gpt2 import GPT2, save
from ..hub.names import EMBEDDED, expand, source
from ..machine.files import current_folder, digest, read_object, replace_files, settle, write_json, write_text
from .answers import vocabulary
from .server import POLICY, TYPES

# Pyodide's public delivery network, with the newest release for which the tests were run.
DELIVERY = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"
ADDRESS = re.compile(r"https?://[\w.:\[\]-]+(/[\w.~%@+-]+)*/?", re.ASCII)  # no character that ends a part of a policy

ABOUT, INDEX, ARCHIVE = "export.json", "index.html", "numpy_gpt2.zip"
FORMAT = "numpy_gpt2 page"
LOCK_FILE = "pyodide-lock.json"  # which packages a release of Pyodide has
CORE = ("pyodide.mjs", "pyodide.asm.wasm", "python_stdlib.zip", LOCK_FILE)
CORE_SCRIPT = ("pyodide.asm.js", "pyodide.asm.mjs")  # one of them, by release
PACKAGES = {"numpy": (2, 0), "regex": (2024, 9, 11)}  # what is needed there, and the first version that will do

NOT_STARTED = (
    "This page has not started. It needs JavaScript, and a web server: opened as a file, it cannot run. "
    "python -m http.server would do."
)


def write_page(folder: Path, model: GPT2, pyodide: str = DELIVERY) -> int:
    """Writes the page to a folder, in one step; one that was written there before is replaced.

    Args:
        folder: the folder, which exists and is `locked`.
        model: the model that the page begins with. Its numbers are rounded to float16, unless it is the embedded model.
        pyodide: a folder with a release of Pyodide, of which the page gets a copy; or the address of such a folder.

    Returns:
        The size of all files, in bytes.

    Raises:
        OSError: a file cannot be read or written; nothing has changed, or the message says what holds.
        ValueError: the folder holds something else; the model has no vocabulary, or a number too large for float16; or
            Pyodide is not whole, or has a package that is too old.
    """
    vocabulary(model)
    copies = [] if is_address(pyodide) else release_files(expand(pyodide))
    settle(folder, earlier_files(folder))
    earlier = earlier_files(folder)
    address = f"{pyodide.rstrip('/')}/" if is_address(pyodide) else "./"
    replace_files(folder, partial(write_files, model=model, address=address, copies=copies), earlier)
    write_text(folder / INDEX, exported_index(address))
    return sum((folder / name).stat().st_size for name in earlier_files(folder))


def earlier_files(folder: Path) -> list[str]:
    """The names of the files that an earlier export wrote to a folder, or was about to; none if it is empty.

    Raises:
        ValueError: it holds something else.
    """
    written = current_folder(folder) / ABOUT
    about = read_object(written) if written.exists() else {}
    sizes = about.get("sizes")
    if about.get("format") == FORMAT and isinstance(sizes, dict):
        return [name for name in (INDEX, ABOUT, *sizes) if Path(name).name == name != ".."]
    if others := sorted(file.name for file in folder.iterdir() if not file.name.startswith(".")):
        raise ValueError(f"{folder} holds something else ({others[0]}): name a folder that is new, empty, or an export")
    return []


def write_files(folder: Path, model: GPT2, address: str, copies: Iterable[Path]) -> None:
    """Writes all files of the page but `index.html` to an empty folder.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the model has a number too large for float16.
    """
    for name, content in static_files():
        if name != INDEX:
            (folder / name).write_bytes(content)
    for file in copies:
        shutil.copyfile(file, folder / file.name)
    (folder / ARCHIVE).write_bytes(archive())
    saved = [] if model.name == EMBEDDED else save_model(model, folder)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    named = {"name": exported_name(model.name), "files": saved}
    about = {"format": FORMAT, "version": __version__, "pyodide": address, "model": named, "sizes": sizes}
    write_json(folder / ABOUT, about, indent=1)


def static_files() -> Iterator[tuple[str, bytes]]:
    """The name and the content of each file in `static/`."""
    for file in (importlib.resources.files(__package__) / "static").iterdir():
        if file.name.rpartition(".")[2] in TYPES:
            yield file.name, file.read_bytes()


def archive() -> bytes:
    """The package as a ZIP archive: its sources and data, without the page's own files. It is the same each time."""
    package = Path(__file__).parent.parent
    written = io.BytesIO()
    with ZipFile(written, "w") as opened:
        for file in sorted(package.rglob("*")):
            path = file.relative_to(package.parent)
            if file.is_file() and not {"__pycache__", "static"} & {*path.parts}:
                opened.writestr(ZipInfo(path.as_posix()), file.read_bytes(), ZIP_DEFLATED, 9)
    return written.getvalue()


def save_model(model: GPT2, folder: Path) -> list[str]:
    """Saves a model in float16 beside the page, and returns the names of its files.

    Raises:
        OSError: a file cannot be written.
        ValueError: a number is too large for float16.
    """
    with TemporaryDirectory(dir=folder) as saved:
        save(model, saved, dtype="float16")
        files = [file for file in sorted(Path(saved).iterdir()) if not file.name.startswith(".")]
        return [file.replace(folder / file.name).name for file in files]


def exported_name(name: str) -> str:
    """The name of a model where there is no folder but that of the models: a folder is one in there.

    >>> exported_name("openai-community/gpt2"), exported_name("/home/me/my-model")
    ('gpt2', './my-model')
    """
    if name == EMBEDDED:
        return name
    named = source(name)
    return named.name if named else f"./{expand(name).resolve().name}"


def exported_index(address: str) -> str:
    """`index.html` with the policy of an exported page, and with what that page says until it runs.

    Args:
        address: of Pyodide's folder, as in `export.json`.
    """
    head = '<meta charset="utf-8">'
    metas = [
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(address), quote=False)}">',
        '<meta name="referrer" content="no-referrer">',
        f'<meta name="numpy-gpt2-export" content="{ABOUT}">',
    ]
    text = dict(static_files())[INDEX].decode()
    text = text.replace(head, "\n  ".join([head, *metas]), 1)
    return text.replace('class="status"></p>', f'class="status">{NOT_STARTED}</p>', 1)


def policy(address: str) -> str:
    """The content security policy of an exported page: the server's, with Pyodide and its worker.

    A policy within the page cannot say who may frame it. The worker is held to the same policy: `python.js` tells why.

    Args:
        address: of Pyodide's folder, as in `export.json`.
    """
    elsewhere = f" {address}" if is_address(address) else ""
    own = {
        "script-src": f"{POLICY['script-src']} 'wasm-unsafe-eval'{elsewhere}",
        "connect-src": f"{POLICY['connect-src']}{elsewhere}",
        "worker-src": "'self' blob:",
    }
    parts = {**POLICY, **own}
    return "; ".join(f"{name} {sources}" for name, sources in parts.items() if name != "frame-ancestors")


def is_address(pyodide: str) -> bool:
    """Whether this is the address of a folder on the web.

    Raises:
        ValueError: it begins like one, but cannot be one.
    """
    if "://" not in pyodide:
        return False
    if not ADDRESS.fullmatch(pyodide):
        raise ValueError(f"{pyodide} is not the address of a folder with Pyodide: {DELIVERY} would be one")
    return True


def release_files(folder: Path) -> list[Path]:
    """The files of a release of Pyodide that the page needs: its core, and the wheels of NumPy and regex.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one is damaged, or a package is too old.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}, which is to hold Pyodide")
    script = next((name for name in CORE_SCRIPT if (folder / name).is_file()), CORE_SCRIPT[0])
    core = [*CORE, script]
    for name in core:
        check_there(folder / name)
    packages = read_object(folder / LOCK_FILE).get("packages", {})
    needed = with_dependencies(PACKAGES, packages, folder)
    check_versions(packages, folder)
    return [folder / name for name in core] + [wheel(folder, packages[name]) for name in needed]


def check_there(file: Path) -> None:
    """Checks that a file of Pyodide is there.

    Raises:
        FileNotFoundError: it is not.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file.parent} is not all of Pyodide: {file.name} is missing. The archive of a release has it, "
            "pyodide-0.27.7.tar.bz2 at https://github.com/pyodide/pyodide/releases"
        )


def with_dependencies(names: Iterable[str], packages: dict[str, Any], folder: Path) -> list[str]:
    """The names of packages, and of all that these need.

    Raises:
        ValueError: the release does not have one.
    """
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if not isinstance(packages.get(name), dict):
            raise ValueError(f"{folder / LOCK_FILE} has no package {name}: this release of Pyodide cannot run the page")
        if name not in found:
            found[name] = None
            waiting += packages[name].get("depends", [])
    return [*found]


def check_versions(packages: dict[str, Any], folder: Path) -> None:
    """Checks that the packages of a release are new enough.

    Raises:
        ValueError: one is too old.
    """
    for name, least in PACKAGES.items():
        has = packages[name].get("version", "0")
        if version(has) < least:
            needs = ".".join(map(str, least))
            raise ValueError(f"{folder} has {name} {has}, and the page needs {needs}: take a newer release of Pyodide")


def version(text: str) -> tuple[int, ...]:
    """The numbers of a version.

    >>> version("2024.9.11")
    (2024, 9, 11)
    """
    return tuple(int(number) for number in re.findall(r"\d+", text))


def wheel(folder: Path, package: dict[str, Any]) -> Path:
    """The wheel of a package, whose checksum is what the release says.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is another one, or damaged.
    """
    file = folder / Path(str(package.get("file_name"))).name
    check_there(file)
    if digest(file, "sha256") != package.get("sha256"):
        raise ValueError(f"{file} is damaged, or of another release: its checksum is not that in {LOCK_FILE}")
    return file
