"""`numpy-gpt2 download`, run as a process: also interrupted, killed, and run again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import random_model
from released_models import HPARAMS, HUB_NAMES, assert_arrived, served_files, size_of
from server import Store, serving

from numpy_gpt2.hub.download import download
from numpy_gpt2.hub.fetch import Fetcher
from numpy_gpt2.hub.files import OPENAI_DATA
from numpy_gpt2.hub.listing import describe_models
from numpy_gpt2.hub.names import NAMES, model_folder

ROOT = Path(__file__).parents[2]
STOPPED = "stopped; the partial download of 124M is kept, and the next download resumes it"

# The rest of a program that has made some preparations, then runs the command.
RUN = """
import sys
from numpy_gpt2.cli.main import main
sys.exit(main())
"""

CTRL_C = f"""
import signal
from numpy_gpt2.hub import fetch

def write(opened, chunk, file, write=fetch.write):
    write(opened, chunk, file)
    if file.name == "{OPENAI_DATA}" and opened.tell() > 100_000:
        signal.raise_signal(signal.SIGINT)

fetch.write = write
"""

NO_PAUSES = """
import time
time.sleep = lambda seconds: None
"""

NO_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A TensorFlow that can be imported, which is all that a download requires of it, and no models."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for variable in ("NUMPY_GPT2_BASE_URL", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    install_tensorflow(monkeypatch, tmp_path / "installed", "")


def install_tensorflow(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """For processes that are started from now on, the module tensorflow has this code."""
    folder.mkdir(exist_ok=True)
    (folder / "tensorflow.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return served_files(random_model(HPARAMS, "float32"), tmp_path_factory.mktemp("served"))


@pytest.fixture
def store(files: dict[str, bytes]) -> Store:
    return Store(files=dict(files))


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with serving(store) as address:
        yield address


def start(*args: str, before: str = "") -> subprocess.Popen[str]:
    """Starts the command, in a program that begins with the code in `before`."""
    program = ["-c", before + RUN] if before else ["-m", "numpy_gpt2"]
    command = [sys.executable, *program, "download", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    with start(*args, before=before) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(args, process.returncode, out, err)


class TestInterruption:
    """A download that ends at any byte is resumed when the command is run again."""

    def kill_at(self, store: Store, total: int, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the command, and kills it when the server has sent this many bytes in all."""
        started = threading.Event()
        processes: list[subprocess.Popen[str]] = []
        sent: dict[str, int] = {}

        def count(path: str, n: int) -> None:
            before, sent[path] = sum(sent.values()), n
            if before < total <= sum(sent.values()):
                started.wait()
                processes[0].kill()
                processes[0].wait()

        store.sent = count
        with start(*args) as process:
            processes.append(process)
            started.set()
            out, err = process.communicate()
        store.sent = lambda path, n: None
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    @pytest.mark.skipif(sys.platform == "win32", reason="a process is killed by a signal")
    @pytest.mark.parametrize("name", ["124M", "distilgpt2"])
    @pytest.mark.parametrize("n_kills", [5, pytest.param(50, marks=pytest.mark.slow(reason="a hundred processes"))])
    def test_killed_at_any_byte(self, store: Store, url: str, tmp_path: Path, name: str, n_kills: int) -> None:
        dice = random.Random(n_kills)
        total = size_of(store, name)
        store.redirect = name == "distilgpt2"
        folder = tmp_path / "models" / name
        for i in range(n_kills):
            # usually a little further each time, as on a bad connection; sometimes from the beginning
            if dice.random() < 0.2:
                for file in folder.glob("*"):
                    file.unlink()
            missing = total - sum(file.stat().st_size for file in folder.glob("*"))
            total_sent = dice.randrange(1, max(2, missing if i % 2 else missing // 4))
            result = self.kill_at(store, total_sent, name, "--base-url", url)
            assert result.returncode == -9, result.stderr
            for file in folder.glob("[!.]*"):
                assert file.read_bytes() == store.files[f"/{name}/{file.name}"]
        assert run(name, "--base-url", url).returncode == 0
        assert_arrived(store, name, folder)

    def test_ctrl_c_prints_one_line_and_keeps_the_partial_file(self, store: Store, url: str) -> None:
        result = run("124M", "--base-url", url, before=CTRL_C)
        lines = [line for line in result.stderr.splitlines() if line and "%|" not in line]
        assert (result.returncode, result.stdout) == (130, "")
        assert lines[1:] == [f"numpy_gpt2: {STOPPED}"]
        assert "Traceback" not in result.stderr
        store.requests.clear()
        assert run("124M", "--base-url", url).returncode == 0
        assert [request.status for request in store.requests if request.method == "GET"] == [206]
        assert_arrived(store, "124M", model_folder("124M"))


@pytest.mark.parametrize("command", [["-m", "numpy_gpt2", "download"], [str(ROOT / "download.py")]], ids=str)
def test_both_commands(command: list[str], url: str, tmp_path: Path) -> None:
    args = [sys.executable, *command, "distilgpt2", "--base-url", url, "--models-dir", str(tmp_path / "here")]
    result = subprocess.run(args, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"distilgpt2 is in {tmp_path}/here/distilgpt2\n")
    assert "fetching 2.31MB of distilgpt2 from" in result.stderr
    assert "model.safetensors: 100%" in result.stderr
    again = subprocess.run(args, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, result.stdout, "")


def test_several_models(url: str, tmp_path: Path) -> None:
    result = run("gpt2", "124M", "distilgpt2", "gpt2", "tiny", "--base-url", url)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"gpt2 is in {tmp_path}/models/gpt2",
        f"124M is in {tmp_path}/models/124M",
        f"distilgpt2 is in {tmp_path}/models/distilgpt2",
        f"tiny is in {model_folder('tiny')}",
    ]


def test_all_models_come_through_the_door_that_needs_no_tensorflow(store: Store, url: str, tmp_path: Path) -> None:
    result = run("all", "--base-url", url, before=NO_TENSORFLOW)
    assert result.returncode == 0, result.stderr
    for name in HUB_NAMES:
        assert_arrived(store, name, tmp_path / "models" / name)
    assert {folder.name for folder in (tmp_path / "models").iterdir()} == {*HUB_NAMES}


def test_quiet(store: Store, url: str) -> None:
    result = run("124M", "--base-url", url, "--quiet")
    assert (result.returncode, result.stderr) == (0, "")


def test_no_verify(store: Store, url: str) -> None:
    store.files["/124M/vocab.bpe"] = store.files["/124M/vocab.bpe"].replace(b"#version: 0.2", b"#version: other")
    result = run("124M", "--base-url", url)
    assert (result.returncode, result.stdout) == (1, "")
    assert "--no-verify accepts others" in result.stderr.splitlines()[-1]
    assert run("124M", "--base-url", url, "--no-verify").returncode == 0


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ([], "name a model (tiny, gpt2,"),
        (["999M"], "there is no model '999M': the names are tiny, gpt2, gpt2-medium"),
        (["all", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_an_invalid_command_line(args: list[str], complaint: str) -> None:
    result = run(*args)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert complaint in result.stderr


def test_without_a_network_the_message_names_the_address() -> None:
    result = run("distilgpt2", "--base-url", "http://127.0.0.1:1", before=NO_PAUSES)
    assert (result.returncode, result.stdout) == (1, "")
    message = "numpy_gpt2: http://127.0.0.1:1/distilgpt2/config.json: no connection"
    assert result.stderr.splitlines()[-1].startswith(message)


@pytest.mark.parametrize(("name", "twin"), [("124M", "gpt2"), ("1558M", "gpt2-xl")])
def test_without_tensorflow_nothing_is_fetched(store: Store, url: str, tmp_path: Path, name: str, twin: str) -> None:
    result = run(name, "--base-url", url, before=NO_TENSORFLOW)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert f'TensorFlow: pip install "numpy_gpt2[weights]"; `numpy-gpt2 download {twin}` fetches' in result.stderr
    assert store.requests == []
    assert not (tmp_path / "models").exists()


def test_a_tensorflow_that_does_not_work_counts_as_none(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tensorflow(monkeypatch, tmp_path / "broken", "raise RuntimeError('no such instruction')")
    result = run("124M", "--base-url", url)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert (
        "TensorFlow is installed, but cannot be imported (no such instruction); `numpy-gpt2 download gpt2`"
        in result.stderr
    )
    assert store.requests == []


def test_list(store: Store, url: str, tmp_path: Path) -> None:
    download("distilgpt2", base_url=url, fetcher=Fetcher(timeout=0.2, sleep=lambda pause: None))
    folder = tmp_path / "models" / "124M"
    folder.mkdir()
    (folder / "encoder.json").write_bytes(store.files["/124M/encoder.json"])
    (tmp_path / "models" / "gpt2-medium").mkdir()
    (tmp_path / "models" / "gpt2-medium" / ".lock").touch()
    result = run("--list")
    assert (result.returncode, result.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert [*lines] == [*NAMES]
    assert lines["tiny"] == f"8.66MB  {model_folder('tiny')}"
    assert lines["124M"] == f"1.04MB  {folder} (not complete; `numpy-gpt2 download 124M` resumes the download)"
    assert lines["gpt2-medium"] == "-  1.52GB to download"
    assert lines["1558M"] == "-  6.23GB to download, with TensorFlow"
    assert lines["distilgpt2"] == f"2.31MB  {tmp_path}/models/distilgpt2"
    assert describe_models(NAMES, os.fspath(tmp_path / "nowhere")).count("to download") == 9


def test_list_fetches_nothing(store: Store, url: str) -> None:
    result = run("--list", "355M", "gpt2", "owner/name", "--base-url", url)
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["355M", "gpt2", "owner/name"]
    assert store.requests == []
