"""The page in a real browser: a server with tiny and a second model, and a window that notes what goes wrong in it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.server import PageServer
from numpy_gpt2.params import HParams

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 30_000  # milliseconds that something may take on a busy machine
SECOND = "somebody/small"  # a second model


class Served:
    """The server, and what it was asked and answered."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.requests: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []  # of the requests of one kind, after `watch`
        self.ended = threading.Event()  # a watched answer came to an end, or was stopped
        self._watched = ""
        self.server = PageServer(self.answer)

    def watch(self, kind: str) -> None:
        self.lines.clear()
        self.ended.clear()
        self._watched = kind

    def hold(self, n_lines: int = 0, **fields: object) -> threading.Event:
        """Holds back the answers to requests with these fields, after so many lines, until the event is set."""
        may_go, answer = threading.Event(), self.answers.answer

        def held(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
            is_held = all(request.get(name) == value for name, value in fields.items())
            with closing(answer(request)) as lines:  # type: ignore[type-var]
                yield from itertools.islice(lines, n_lines if is_held else None)
                if is_held:
                    assert may_go.wait(PATIENCE / 1000)
                    yield from lines

        self.answers.answer = held  # type: ignore[method-assign]
        return may_go

    def answer(self, request: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        self.requests.append(request)
        is_watched = request["kind"] == self._watched
        try:
            with closing(self.answers.answer(request)) as lines:  # type: ignore[type-var]
                for line in lines:
                    if is_watched:
                        self.lines.append(line)
                    yield line
        finally:
            if is_watched:
                self.ended.set()


class Watched:
    """A browser's window, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, height: int = 800, **options: Any) -> None:
        self.address = address
        viewport = {"width": width, "height": height}
        self.context = browser.new_context(viewport=viewport, accept_downloads=True, **options)
        self.context.add_init_script(f"localStorage['numpy-gpt2/settings'] ??= '{json.dumps({'seed': '3'})}'")
        self.context.set_default_timeout(PATIENCE)
        self.wrong: list[str] = []

    def open(self) -> Any:
        from playwright.sync_api import expect

        page = self.context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self._see)
        page.goto(self.address)
        expect(page.locator("#model")).not_to_have_value("")
        expect(page.locator("#text")).to_be_editable()
        return page

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(message.text)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.address, f"blob:{self.address}")):
            self.wrong.append(f"a request to {request.url}")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    hparams = HParams(n_vocab=50257, n_ctx=32, n_embd=8, n_head=2, n_layer=1)
    numpy_gpt2.save(numpy_gpt2.init(hparams), folder / SECOND)
    return folder


@pytest.fixture
def served(tiny: GPT2, models_dir: Path) -> Iterator[Served]:
    served = Served(Answers(tiny, str(models_dir), partial(numpy_gpt2.load, models_dir=models_dir)))
    thread = threading.Thread(target=lambda: served.server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def window(browser: Any, served: Served) -> Iterator[Watched]:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    window = Watched(browser, served.server.address)
    yield window
    window.context.close()
    assert not window.wrong, window.wrong


@pytest.fixture
def page(window: Watched) -> Any:
    return window.open()
