"""The page as static files: which there are, what they say, and what is left when something goes wrong."""

from __future__ import annotations

import errno
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import SHAPES, random_model

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.machine import files
from numpy_gpt2.page import export
from numpy_gpt2.page.export import DELIVERY, policy, write_page
from numpy_gpt2.page.server import HEADERS
from numpy_gpt2.page.worker import ExportedAnswers, column_major, lines, prepare
from numpy_gpt2.params import HParams, named_arrays

ROOT = Path(__file__).parent.parent.parent
STATIC = ROOT / "numpy_gpt2" / "page" / "static"
NAME = "somebody/small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    return folder


@pytest.fixture
def pyodide(tmp_path: Path) -> Path:
    """A folder with the files of a release of Pyodide, and some that the page does not need."""
    folder = tmp_path / "pyodide"
    folder.mkdir()
    for name in ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide.d.ts"):
        (folder / name).write_text(name)
    packages = {}
    for name, version, depends in (
        ("numpy", "2.0.2", ["libblas"]),
        ("regex", "2024.9.11", []),
        ("libblas", "0.3", []),
        ("scipy", "1.14", ["numpy"]),
    ):
        wheel = f"{name}-{version}.whl"
        (folder / wheel).write_text(wheel)
        sha256 = hashlib.sha256(wheel.encode()).hexdigest()
        packages[name] = {"file_name": wheel, "version": version, "sha256": sha256, "depends": depends}
    (folder / "pyodide-lock.json").write_text(json.dumps({"packages": packages}))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> GPT2:
    """A model with a name, which is not the embedded one."""
    folder = tmp_path_factory.mktemp("models")
    hparams = HParams(n_vocab=50257, n_ctx=32, n_embd=8, n_head=2, n_layer=1)
    numpy_gpt2.save(numpy_gpt2.init(hparams), folder / NAME)
    return numpy_gpt2.load(NAME, models_dir=folder)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def change_lock_file(pyodide: Path, change: Any) -> None:
    content = json.loads((pyodide / "pyodide-lock.json").read_text())
    change(content["packages"])
    (pyodide / "pyodide-lock.json").write_text(json.dumps(content))


def about(folder: Path) -> Any:
    return json.loads((folder / "export.json").read_text())


# What is written


def test_the_files_of_a_page_without_pyodide(tiny: GPT2, folder: Path) -> None:
    size = write_page(folder, tiny)
    static = {file.name for file in STATIC.iterdir()}
    assert names(folder) == static | {"export.json", "numpy_gpt2.zip"}
    assert size == sum(file.stat().st_size for file in folder.iterdir())
    for name in static - {"index.html"}:
        assert (folder / name).read_bytes() == (STATIC / name).read_bytes()
    content = about(folder)
    assert content["pyodide"] == DELIVERY
    assert content["model"] == {"name": "tiny", "files": []}
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert content["sizes"] == {name: n for name, n in sizes.items() if name not in ("index.html", "export.json")}


def test_the_archive_is_the_package_without_tests_caches_and_the_page_itself(tiny: GPT2, folder: Path) -> None:
    write_page(folder, tiny)
    first = (folder / "numpy_gpt2.zip").read_bytes()
    with ZipFile(io.BytesIO(first)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    package = {file for file in (ROOT / "numpy_gpt2").rglob("*") if file.is_file() and file.parent != STATIC}
    package = {file for file in package if "__pycache__" not in file.parts}
    assert found == {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in package}
    assert {"numpy_gpt2/__init__.pyi", "numpy_gpt2/layers.py", "numpy_gpt2/data/tiny/model.safetensors"} <= {*found}
    assert export.archive() == first


def test_the_archive_runs_with_numpy_and_regex_alone(tiny: GPT2, folder: Path, tmp_path: Path) -> None:
    """As in Pyodide: where an import of anything else fails, `import` finds what it needs in the archive."""
    write_page(folder, tiny)
    with ZipFile(folder / "numpy_gpt2.zip") as archive:
        archive.extractall(tmp_path / "packages")
    program = """if True:
        import json, sys
        sys.platform = "emscripten"
        for name in ("requests", "urllib3", "tqdm", "filelock", "platformdirs", "threadpoolctl"):
            sys.modules[name] = None
        from numpy_gpt2.page import worker
        assert worker.__file__.startswith(sys.argv[1])
        worker.prepare("tiny", sys.argv[2])
        answers = worker.ExportedAnswers("tiny", sys.argv[2])
        for request in json.loads(sys.argv[3]):
            print(json.dumps([json.loads(line) for line in worker.lines(answers, json.dumps(request))]))
    """
    text = {"text": "He went on, nevertheless"}  # a whole word, for this vocabulary
    suggest = {"kind": "suggest", **text, "n": 1, "max_new_tokens": 8, "seed": 5, "stop": [], "options": {"top_k": 40}}
    requests = [{"kind": "models"}, suggest, {"kind": "tokens", **text, "n_alternatives": 2}]
    arguments = [str(tmp_path / "packages"), str(tmp_path / "models"), json.dumps(requests)]
    environment = {**os.environ, "PYTHONPATH": arguments[0]}
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert run.stderr == ""
    models, suggested, tokens = map(json.loads, run.stdout.splitlines())
    assert [(model["name"], model["is_here"]) for model in models] == [("tiny", True)]
    text_of_it = "".join(line.get("text", "") for line in suggested)
    assert text_of_it == tiny.generate(text["text"], max_new_tokens=8, seed=5)
    assert tiny.tokenizer
    assert [token["id"] for token in tokens] == tiny.tokenizer.encode(text["text"])


def test_what_is_needed_of_pyodide_is_copied(tiny: GPT2, folder: Path, pyodide: Path) -> None:
    write_page(folder, tiny, str(pyodide))
    core = {"pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"}
    copied = core | {"numpy-2.0.2.whl", "regex-2024.9.11.whl", "libblas-0.3.whl"}
    assert names(folder) & names(pyodide) == copied
    assert all((folder / name).read_bytes() == (pyodide / name).read_bytes() for name in copied)
    assert about(folder)["pyodide"] == "./"


def test_the_core_of_newer_releases_has_another_name(tiny: GPT2, folder: Path, pyodide: Path) -> None:
    (pyodide / "pyodide.asm.js").rename(pyodide / "pyodide.asm.mjs")
    write_page(folder, tiny, str(pyodide))
    assert "pyodide.asm.mjs" in names(folder)


def test_another_model_is_beside_the_page_in_half_precision(small: GPT2, folder: Path, tmp_path: Path) -> None:
    write_page(folder, small)
    model = about(folder)["model"]
    assert model["name"] == NAME
    models = tmp_path / "there"
    there = Path(prepare(NAME, str(models)))
    for name in model["files"]:
        shutil.copy(folder / name, there)
    answers = ExportedAnswers(NAME, str(models))
    assert answers.model.hparams == small.hparams
    rounded = small.params.wte.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(answers.model.params.wte, rounded)
    listed = [json.loads(line) for line in lines(answers, '{"kind": "models"}')]
    assert [(model["name"], model["is_here"]) for model in listed] == [("tiny", True), (NAME, True)]
    *_, last = lines(answers, '{"kind": "load", "model": "tiny", "text": ""}')
    assert json.loads(last)["about"]["model"] == "tiny"
    *_, last = lines(answers, '{"kind": "load", "model": "gpt2", "text": ""}')
    assert json.loads(last) == {"error": "there is no model 'gpt2' to choose from"}


def test_a_model_in_a_folder_keeps_the_name_of_the_folder(
    small: GPT2, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numpy_gpt2.save(small, tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    for name in ("./", str(tmp_path / "mine"), "../mine"):
        write_page(folder, numpy_gpt2.load(name))
        assert about(folder)["model"]["name"] == "./mine"
    there = Path(prepare("./mine", str(tmp_path / "there")))
    assert there == tmp_path / "there" / "mine"
    for file in about(folder)["model"]["files"]:
        shutil.copy(folder / file, there)
    assert ExportedAnswers("./mine", str(tmp_path / "there")).model.hparams == small.hparams


def test_the_columns_of_a_linear_map_are_whole_in_memory_and_the_values_the_same(tiny: GPT2) -> None:
    model = column_major(tiny)
    for (name, array), (_, before) in zip(named_arrays(model.params), named_arrays(tiny.params), strict=True):
        np.testing.assert_array_equal(array, before)
        assert array.flags.f_contiguous if name.endswith("/w") else array is before, name


def test_an_answer_of_the_worker_is_json_and_never_an_exception(
    tiny: GPT2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare("tiny", str(tmp_path / "models"))
    answers = ExportedAnswers("tiny", str(tmp_path / "models"))
    (line,) = lines(answers, "{")
    assert json.loads(line)["error"].startswith("the request is not JSON")
    monkeypatch.setattr(answers, "about", lambda: 1 / 0)
    (line,) = lines(answers, '{"kind": "about"}')
    assert json.loads(line) == {"error": "something went wrong that should not: the browser's console says what"}
    assert caplog.messages == ["an answer failed: ZeroDivisionError: division by zero"]


# The policy


def policy_of(text: str) -> dict[str, str]:
    return dict(part.split(" ", 1) for part in text.split("; "))


def test_the_policy_is_the_servers_and_webassembly(tiny: GPT2, folder: Path, pyodide: Path) -> None:
    served = policy_of(HEADERS["Content-Security-Policy"])
    assert served.pop("frame-ancestors") == "'none'"
    own = {"script-src": "'self' 'wasm-unsafe-eval'", "worker-src": "'self' blob:"}
    assert policy_of(policy("./")) == {**served, **own}
    elsewhere = {"script-src": f"'self' 'wasm-unsafe-eval' {DELIVERY}", "connect-src": f"'self' {DELIVERY}"}
    assert policy_of(policy(DELIVERY)) == {**served, **own, **elsewhere}
    for given, address in ((str(pyodide), "./"), (DELIVERY.rstrip("/"), DELIVERY)):
        write_page(folder, tiny, given)
        text = (folder / "index.html").read_text(encoding="utf-8")
        (meta,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', text)
        assert html.unescape(meta) == policy(address)
        assert text.index(meta) < text.index("<link") < text.index("<script")


def test_the_page_says_that_it_is_exported_and_what_it_needs(tiny: GPT2, folder: Path) -> None:
    write_page(folder, tiny)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert '<meta name="numpy-gpt2-export" content="export.json">' in text
    assert re.search(r'<p id="status"[^>]*>This page has not started\. It needs JavaScript, and a web server', text)
    assert "numpy-gpt2-export" not in (STATIC / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "address", ["https://", "https://a.b/'none'/", "https://a.b/; script-src *", "ftp://a.b/", 'https://a.b/">', "://"]
)
def test_what_is_no_address_does_not_get_into_the_policy(tiny: GPT2, folder: Path, address: str) -> None:
    with pytest.raises(ValueError, match=r"is not the address of a folder with Pyodide: https://cdn\.jsdelivr\.net"):
        write_page(folder, tiny, address)
    assert names(folder) == set()


# Pyodide's folder


@pytest.mark.parametrize(
    "name",
    [
        *("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"),
        *("numpy-2.0.2.whl", "regex-2024.9.11.whl", "libblas-0.3.whl"),
    ],
)
def test_a_missing_file_of_pyodide_is_named(tiny: GPT2, folder: Path, pyodide: Path, name: str) -> None:
    (pyodide / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"^{pyodide} is not all of Pyodide: {name} is missing"):
        write_page(folder, tiny, str(pyodide))
    assert names(folder) == set()


def test_no_folder_of_pyodide(tiny: GPT2, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^there is no folder .*nowhere, which is to hold Pyodide$"):
        write_page(folder, tiny, str(tmp_path / "nowhere"))


def test_a_damaged_wheel(tiny: GPT2, folder: Path, pyodide: Path) -> None:
    (pyodide / "regex-2024.9.11.whl").write_text("another")
    with pytest.raises(ValueError, match="regex-2024.9.11.whl is damaged, or of another release"):
        write_page(folder, tiny, str(pyodide))


@pytest.mark.parametrize(("name", "version"), [("numpy", "1.26.4"), ("regex", "2024.4.16")])
def test_a_package_that_is_too_old(tiny: GPT2, folder: Path, pyodide: Path, name: str, version: str) -> None:
    change_lock_file(pyodide, lambda packages: packages[name].update(version=version))
    with pytest.raises(ValueError, match=f"has {name} {version}, and the page needs .*: take a newer release"):
        write_page(folder, tiny, str(pyodide))


def test_a_release_without_a_package(tiny: GPT2, folder: Path, pyodide: Path) -> None:
    change_lock_file(pyodide, lambda packages: packages.pop("regex"))
    with pytest.raises(ValueError, match="has no package regex: this release of Pyodide cannot run the page"):
        write_page(folder, tiny, str(pyodide))


def test_the_versions_are_those_that_the_package_requires() -> None:
    required = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    for name, least in export.PACKAGES.items():
        assert f"\n    {name}>={'.'.join(map(str, least))}\n" in required


# Whole or not at all


def test_an_earlier_export_is_replaced_and_what_else_is_there_stays(
    tiny: GPT2, folder: Path, pyodide: Path, small: GPT2
) -> None:
    write_page(folder, small, str(pyodide))
    (folder / ".nojekyll").touch()
    (folder / "CNAME").touch()
    write_page(folder, tiny)
    static = {file.name for file in STATIC.iterdir()}
    assert names(folder) == static | {"export.json", "numpy_gpt2.zip", ".nojekyll", "CNAME"}


@pytest.mark.parametrize("name", ["index.html", "notes.txt", "export.json"])
def test_a_folder_with_something_else_is_refused(tiny: GPT2, folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=f"holds something else .{name}.: name a folder that is new, empty, or an exp"):
        write_page(folder, tiny)
    assert names(folder) == {name}
    assert (folder / name).read_text() == "{}"


def test_names_outside_of_the_folder_are_not_removed(tiny: GPT2, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    sizes = {"../precious": 0, str(tmp_path / "precious"): 0}
    (folder / "export.json").write_text(json.dumps({"format": export.FORMAT, "sizes": sizes}))
    write_page(folder, tiny)
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_leaves_what_was_there(
    tiny: GPT2, folder: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    if not is_new:
        write_page(folder, tiny)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(file: Path) -> None:
        if file.name == "numpy_gpt2.zip":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left on device: nothing was saved, and what the folder held is whole"):
        write_page(folder, tiny)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("place", range(0, 120, 11))
def test_an_interrupted_export_leaves_no_page_that_is_not_whole(
    tiny: GPT2, folder: Path, pyodide: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool, place: int
) -> None:
    """Killed before one of the changes of the folder: `index.html` is there only with all that it needs."""
    if not is_new:
        write_page(folder, tiny, str(pyodide))
    n_left = place

    class KilledError(BaseException):
        pass

    def count(function: Any) -> Any:
        def counted(*args: Any, **others: Any) -> Any:
            nonlocal n_left
            n_left -= 1
            if n_left < 0:
                raise KilledError
            return function(*args, **others)

        return counted

    with monkeypatch.context() as killing:
        killing.setattr(Path, "replace", count(Path.replace))
        killing.setattr(Path, "unlink", count(Path.unlink))
        killing.setattr(files, "sync", count(files.sync))
        killing.setattr(files, "link_or_copy", count(files.link_or_copy))
        try:
            write_page(folder, tiny)
        except KilledError:
            assert n_left < 0
    if (folder / "index.html").exists():
        text = (folder / "index.html").read_text(encoding="utf-8")
        needed = {file.name for file in STATIC.iterdir()} | {"export.json", "numpy_gpt2.zip"}
        assert needed <= names(folder)
        assert (policy("./") in html.unescape(text)) <= ("numpy-2.0.2.whl" in names(folder))
    write_page(folder, tiny)
    assert files.is_settled(folder)
    write_page(folder, tiny)  # which completes nothing, so all of the page is there


# The command


def command(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMPY_GPT2_MODELS": str(cwd / "models"), "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "numpy_gpt2", "page", *args]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=cwd)


def test_the_command(tmp_path: Path, pyodide: Path) -> None:
    run = command("--export", "my page", "--pyodide", "pyodide", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    first, second = run.stdout.splitlines()
    assert re.fullmatch(r"the page with tiny is in my page, \d\.\d+MB; to try it:", first)
    assert second == "  python -m http.server --bind 127.0.0.1 --directory 'my page'"
    assert {"index.html", "pyodide.mjs"} <= names(tmp_path / "my page")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--pyodide", "pyodide"], "--pyodide goes with --export: the page that is served needs no Pyodide"),
        (["--export", ""], "name a folder to save to; '.' is the one in which you are"),
        (["--export", "gpt2"], "'gpt2' is the name of a model: write the folder as './gpt2'"),
        (["--export", "file"], "file is a file, not a folder: name a folder to save to"),
        (["--export", "."], ". holds something else (file): name a folder that is new, empty, or an export"),
        (["--export", "new", "--pyodide", "nowhere"], "there is no folder nowhere, which is to hold Pyodide"),
        (["--export", "new", "--model", "125M"], "there is no model '125M'"),
        (["--export", "new", "--model", "./ids"], "this model has no vocabulary and knows only ids: the page needs"),
    ],
    ids=str,
)
def test_errors_are_a_sentence_and_leave_nothing(args: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if "./ids" in args:
        numpy_gpt2.save(random_model(SHAPES[0]), tmp_path / "ids")
    run = command(*args, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"numpy_gpt2: {sentence}")
    assert not (tmp_path / "new").exists()
