"""Downloads from a server on this machine that behaves like OpenAI's store, well and badly."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from numpy_gpt2.download import FILES, download, is_on_disk, model_folder

ROOT = Path(__file__).parent.parent


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, counts requests, and can break off in the middle of a file."""

    requests: list[str]
    cut: int | None

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path.rpartition("/")[2])
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read()[: self.cut])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def handler(tmp_path: Path) -> type[Handler]:
    class OwnHandler(Handler):
        requests: list[str] = []  # noqa: RUF012
        cut = None

    served = tmp_path / "served" / "124M"
    shutil.copytree(model_folder("tiny"), served)
    for file in FILES:
        (served / file).touch()
    (served / FILES[3]).write_bytes(b"x" * 3_000_000)
    return OwnHandler


@pytest.fixture
def store(handler: type[Handler], tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_arrives_whole(store: str, tmp_path: Path) -> None:
    folder = download("124M", tmp_path / "models", store)
    assert folder == tmp_path / "models" / "124M"
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    for file in FILES:
        assert (folder / file).read_bytes() == (tmp_path / "served" / "124M" / file).read_bytes()
    assert is_on_disk("124M", tmp_path / "models")


def test_files_that_are_there_are_not_fetched_again(store: str, handler: type[Handler], tmp_path: Path) -> None:
    folder = download("124M", tmp_path / "models", store)
    (folder / "vocab.bpe").unlink()
    assert not is_on_disk("124M", tmp_path / "models")
    handler.requests.clear()
    download("124M", tmp_path / "models", store)
    assert handler.requests == ["vocab.bpe"]


def test_a_transfer_that_breaks_off_leaves_no_file_of_that_name(
    store: str, handler: type[Handler], tmp_path: Path
) -> None:
    handler.cut = 1_000_000
    with pytest.raises(OSError, match=rf"{store}/124M/{FILES[3]}(: no connection, or it broke off| ended after)"):
        download("124M", tmp_path / "models", store)
    assert sorted(p.name for p in (tmp_path / "models" / "124M").iterdir()) == sorted(FILES[:3])
    handler.cut = None
    download("124M", tmp_path / "models", store)
    assert is_on_disk("124M", tmp_path / "models")


def test_a_file_that_the_server_does_not_have(store: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "124M" / "hparams.json").unlink()
    with pytest.raises(OSError, match=r"hparams\.json: the server answers 404"):
        download("124M", tmp_path / "models", store)


def test_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # nobody listens there once it is closed
    with pytest.raises(OSError, match=rf"http://127\.0\.0\.1:{port}/124M/checkpoint: no connection.*check the network"):
        download("124M", tmp_path / "models", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("name", ["tiny", "355M", "distilgpt2", "nothing"])
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be downloaded, only 124M"):
        download(name, tmp_path / "models")


def test_an_alias_is_the_same_model(store: str, tmp_path: Path) -> None:
    assert download("gpt2", tmp_path / "models", store) == tmp_path / "models" / "124M"


@pytest.mark.parametrize("command", [["-m", "numpy_gpt2.download"], [str(ROOT / "download.py")]], ids=str)
class TestCommand:
    def test_only_124m_for_now(self, command: list[str]) -> None:
        result = subprocess.run([sys.executable, *command, "999M"], capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert "999M" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_what_is_on_disk_is_not_fetched(self, command: list[str], tmp_path: Path) -> None:
        folder = tmp_path / "124M"
        folder.mkdir()
        for file in FILES:
            (folder / file).touch()
        args = [sys.executable, *command, "124M", "--models-dir", str(tmp_path)]
        result = subprocess.run(args, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"124M is in {folder}\n", "")


def test_without_tensorflow_nothing_is_fetched(tmp_path: Path) -> None:
    code = "import sys; sys.modules['tensorflow'] = None; from numpy_gpt2.download import main; sys.exit(main())"
    args = [sys.executable, "-c", code, "124M", "--models-dir", str(tmp_path)]
    result = subprocess.run(args, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert 'pip install "numpy_gpt2[weights]"' in result.stderr
    assert not [*tmp_path.iterdir()]
