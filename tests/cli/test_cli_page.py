"""`numpy-gpt2 page`, run as a process, and which browser it opens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SHAPES, random_model

import numpy_gpt2
from numpy_gpt2.cli import main
from numpy_gpt2.page.server import PageServer

WAIT = 120  # seconds after which a test that hangs fails


@pytest.fixture(autouse=True)
def no_models_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMPY_GPT2_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "numpy_gpt2", "page", *args]


@contextlib.contextmanager
def running(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it prints."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command("--no-browser", *args), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline()
        finally:
            process.kill()


def connect(address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(address.split("/")[2], timeout=WAIT)


def ask(connection: http.client.HTTPConnection, **request: Any) -> http.client.HTTPResponse:
    connection.request("POST", "/answer", json.dumps(request), {"Content-Type": "application/json"})
    return connection.getresponse()


def test_the_page_is_at_the_address_that_is_printed() -> None:
    with running("--port", "0", "--model", "tiny") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert address.endswith("/\n")
        with contextlib.closing(connect(address)) as connection:
            connection.request("GET", "/")
            response = connection.getresponse()
            assert (response.status, response.read(15)) == (200, b"<!doctype html>")
            response.read()
            assert json.loads(ask(connection, kind="about").read())["model"] == "tiny"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT) == ("", "")
        assert process.returncode == 130


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another signal there")
def test_ctrl_c_ends_it_at_once_while_texts_are_made() -> None:
    with running("--port", "0", "--model", "tiny") as (process, address), contextlib.ExitStack() as stack:
        for seed in (1, 2):
            connection = stack.enter_context(contextlib.closing(connect(address)))
            response = ask(connection, kind="suggest", text="A king", n=16, max_new_tokens=1024, seed=seed)
            assert json.loads(response.readline())["seed"] == seed
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=WAIT) == ("", "")
        assert process.returncode == 130
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running("--port", str(port), "--model", "tiny") as (process, address):
            with contextlib.closing(connect(address)) as connection:
                assert ask(connection, kind="about").status == 200
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=WAIT)
            (line,) = err.splitlines()
            assert line.startswith(f"numpy_gpt2: port {port} cannot be had (")
            assert line.endswith(f": the page has port {address.split(':')[2][:-2]}")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--port", "65536"], "--port must be a whole number, 0 to 65535, not 65536"),
        (["--port", "-1"], "--port must be a whole number, 0 to 65535, not -1"),
        (["--host", ""], "--host must name an address of this machine"),
        (["--host", "192.0.2.1"], "the page cannot be at 192.0.2.1: "),
        (["--model", "125M"], "there is no model '125M'"),
        (["--model", "./ids"], "this model has no vocabulary and knows only ids: the page needs one that writes text"),
    ],
    ids=str,
)
def test_errors_are_a_sentence_before_the_page_is_there(args: list[str], sentence: str, tmp_path: Path) -> None:
    numpy_gpt2.save(random_model(SHAPES[0]), tmp_path / "ids")
    given = args if "--model" in args else [*args, "--model", "tiny"]
    result = subprocess.run(command("--no-browser", *given), capture_output=True, text=True, check=False, timeout=WAIT)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"numpy_gpt2: {sentence}")


@pytest.mark.parametrize("args", [[], ["--no-browser"]], ids=str)
@pytest.mark.parametrize("error", [None, webbrowser.Error("there is no browser")], ids=str)
def test_the_browser_is_opened_when_the_page_is_there(
    args: list[str], error: Exception | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened, is_open = list[str](), threading.Event()

    def open_browser(address: str) -> bool:
        with socket.create_connection(("127.0.0.1", int(address.split(":")[2][:-1])), timeout=WAIT):
            opened.append(address)
        is_open.set()
        if error:
            raise error
        return True

    def serve_forever(server: PageServer) -> None:
        assert args or is_open.wait(WAIT)

    monkeypatch.setattr(webbrowser, "open", open_browser)
    monkeypatch.setattr(PageServer, "serve_forever", serve_forever)
    assert main.main(["page", "--port", "0", "--model", "tiny", *args]) == 0
    out, err = capfd.readouterr()
    assert opened == ([] if args else [out.strip()])
    assert err == ""
