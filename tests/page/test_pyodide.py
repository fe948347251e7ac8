"""The exported page in a real browser, where Pyodide runs the package: it needs no server but one for static files."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")

import test_in_browser
from browsing import PATIENCE, Watched
from test_in_browser import expect, listed, settle, suggest, suggestion, text_of, write

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.export import write_page
from numpy_gpt2.params import HParams

PYODIDE = os.environ.get("NUMPY_GPT2_PYODIDE", "")
pytestmark = [
    pytest.mark.pyodide,
    pytest.mark.skipif(not PYODIDE, reason="NUMPY_GPT2_PYODIDE names no folder with Pyodide and its wheels"),
    test_in_browser.pytestmark,
]

WHOLE = "He went on, nevertheless"  # a whole word, for tiny's vocabulary
SECOND = "somebody/small"


class StaticFiles(http.server.SimpleHTTPRequestHandler):
    """What `python -m http.server` does, but silently; other pages may read the files, as from a delivery network."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path | str) -> Iterator[str]:
    """The address at which the files of a folder are."""
    handler = functools.partial(StaticFiles, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def exported(tiny: GPT2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page(folder, tiny, PYODIDE)
    return folder


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[[str], Watched]]:
    """Makes a window, in which nothing may go wrong but what is taken out of `wrong`."""
    expect.set_options(timeout=2 * PATIENCE)
    windows = []

    def open_window(address: str) -> Watched:
        windows.append(Watched(browser, address))
        return windows[-1]

    yield open_window
    for window in windows:
        window.context.close()
    assert [wrong for window in windows for wrong in window.wrong] == []


@pytest.fixture
def window(exported: Path, opened: Callable[[str], Watched]) -> Iterator[Watched]:
    with serving(exported) as address:
        window = opened(address)
        window.context.add_init_script(WATCH)
        yield window


@pytest.fixture
def page(window: Watched) -> Any:
    return window.open()


WATCH = """
    window.sent = [];
    const send = Worker.prototype.postMessage;
    Worker.prototype.postMessage = function (message) {
        window.sent.push(message);
        send.call(this, message);
    };
"""


def texts(page: Any, n: int) -> list[str]:
    return [str(suggestion(page, i).text_content()) for i in range(n)]


def test_it_writes_what_generate_writes(page: Any, tiny: GPT2) -> None:
    page.get_by_label("Seed").fill("7")
    write(page, WHOLE)
    suggest(page)
    expected = tiny.generate(WHOLE, max_new_tokens=12, seed=7, num_return_sequences=3)
    assert texts(page, 3) == expected
    expect(page.get_by_role("status")).to_contain_text("tokens a second")
    page.keyboard.press("Enter")
    assert text_of(page) == WHOLE + expected[0]
    settle(page)
    assert tiny.tokenizer
    expect(page.locator("#count")).to_have_text(f"{len(tiny.tokenizer.encode(WHOLE + expected[0]))} tokens")


def test_several_answers_at_once(page: Any, tiny: GPT2) -> None:
    """Others are asked for while the first are made: each answer is what it would be alone."""
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Length").fill("100")
    write(page, WHOLE)
    page.keyboard.press("Tab")
    expect(suggestion(page)).not_to_have_text("")
    page.keyboard.press("Tab")
    expect(listed(page)).to_have_count(6)
    expect(suggestion(page, 3)).not_to_have_text("")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    expected = [
        tiny.generate(WHOLE, max_new_tokens=100, seed=seed, num_return_sequences=3, slide=True) for seed in (7, 8)
    ]
    assert texts(page, 6) == expected[0] + expected[1]


def test_stop_stops_the_model_at_the_next_token_and_keeps_what_is_there(page: Any, tiny: GPT2) -> None:
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Length").fill("1024")
    write(page, WHOLE)
    page.keyboard.press("Tab")
    expect(suggestion(page)).not_to_have_text("")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    expect(page.locator("#stop")).to_be_hidden()
    kept = texts(page, 3)
    n_tokens = [len(tiny.tokenizer.encode(text)) for text in kept] if tiny.tokenizer else []
    assert max(n_tokens) < 500
    sent = page.evaluate("sent")
    asked = next(message["id"] for message in sent if '"suggest"' in message.get("request", ""))
    assert [message for message in sent if message["id"] == asked][-1] == {"id": asked, "isStopped": True}
    page.keyboard.press("Escape")
    page.get_by_label("Length").fill("12")
    page.locator("#text").focus()
    suggest(page)
    assert texts(page, 3) == tiny.generate(WHOLE, max_new_tokens=12, seed=7, num_return_sequences=3)


CHANGES = [{"name": "h2/attn/a", "how": "zero", "head": 1}]
ANSWERED = [
    {"kind": "look"},
    {"kind": "lines", "layer": 1, "changes": CHANGES},
    {"kind": "row", "name": "h1/attn/weights", "head": 2, "row": 3},
    {"kind": "explain", "name": "h3/attn/weights", "index": [0, 1, 4, 2]},
    {"kind": "lens"},
    {"kind": "attribution", "position": 3},
    {"kind": "experiment", "position": 4, "changes": CHANGES},
    {"kind": "write", "max_new_tokens": 5, "seed": 3, "options": {}},
    {"kind": "distribution", "options": {"top_k": 5}},
    {"kind": "tokens"},
]
NEARLY = {"bytes"}  # of a picture: a rounded number may fall on the other side of a border


def assert_alike(found: Any, expected: Any, where: str) -> None:
    """The same data, up to the rounding of numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected.keys() - NEARLY:
            assert_alike(found[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, each in enumerate(expected):
            assert_alike(found[i], each, f"{where}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3), where
    else:
        assert found == expected, where


def test_the_view_look_inside_is_answered_as_on_the_desktop(page: Any, tiny: GPT2) -> None:
    program = """async (request) => {
        const { answer } = await import("./answers.js");
        const lines = [];
        for await (const line of answer(request)) lines.push(line);
        return lines;
    }"""
    answers = Answers(tiny)
    for fields in ANSWERED:
        request = {**fields, "text": WHOLE}
        expected = json.loads(json.dumps([*answers.answer(request)]))
        assert "error" not in expected[-1], expected[-1]
        assert_alike(page.evaluate(program, request), expected, fields["kind"])
    write(page, WHOLE)
    page.get_by_role("link", name="Look inside").click()
    expect(page.locator("#look")).to_contain_text("def embed(ids: Array, params: Params")


def test_what_the_start_waits_for_is_said_and_it_can_be_stopped(window: Watched) -> None:
    page = window.context.new_page()
    page.goto(window.address)
    said = page.locator("#work-what")
    for sentence in ("Loading Python…", "Loading NumPy…", re.compile(r"Loading the package, 8\.\d MB…")):
        expect(said).to_have_text(sentence)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    expect(page.locator("#text")).to_be_editable()
    write(page, WHOLE)
    suggest(page)
    assert all(texts(page, 3))


def test_only_what_was_exported_may_be_chosen(opened: Callable[[str], Watched], tiny: GPT2, tmp_path: Path) -> None:
    hparams = HParams(n_vocab=50257, n_ctx=32, n_embd=8, n_head=2, n_layer=1)
    numpy_gpt2.save(numpy_gpt2.init(hparams), tmp_path / "models" / SECOND)
    small = numpy_gpt2.load(SECOND, models_dir=tmp_path / "models")
    (tmp_path / "page").mkdir()
    write_page(tmp_path / "page", small, PYODIDE)
    with serving(tmp_path / "page") as address:
        page = opened(address).open()
        chooser = page.get_by_label("Model", exact=True)
        expect(chooser).to_have_value(SECOND)
        assert [option.get_attribute("value") for option in chooser.locator("option").all()] == ["tiny", SECOND]
        write(page, WHOLE)
        suggest(page)
        page.keyboard.press("Escape")
        chooser.select_option("tiny")
        expect(page.get_by_role("status")).to_contain_text("tiny reads the text as")
        page.get_by_label("Seed").fill("7")
        page.locator("#text").focus()
        suggest(page)
        assert texts(page, 3) == tiny.generate(WHOLE, max_new_tokens=12, seed=7, num_return_sequences=3)


def test_pyodide_may_be_elsewhere_and_nothing_but_that(
    opened: Callable[[str], Watched], tiny: GPT2, tmp_path: Path
) -> None:
    with serving(PYODIDE) as there, serving(tmp_path) as here:
        write_page(tmp_path, tiny, there)
        assert not (tmp_path / "pyodide.mjs").exists()
        window = opened(here)
        page = window.open()
        asked = [wrong for wrong in window.wrong if wrong.startswith(f"a request to {there}")]
        assert {wrong.rpartition("/")[2] for wrong in asked} >= {"pyodide.mjs", "pyodide.asm.wasm", "python_stdlib.zip"}
        window.wrong[:] = [wrong for wrong in window.wrong if wrong not in asked]
        write(page, WHOLE)
        suggest(page)


def test_the_worker_is_held_to_the_policy_of_the_page(window: Watched, page: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with serving(tmp_path) as elsewhere:
        (worker,) = page.workers
        program = "address => fetch(address).then(() => 'fetched', () => 'refused')"
        assert worker.evaluate(program, f"{window.address}export.json") == "fetched"
        assert worker.evaluate(program, f"{elsewhere}secret.txt") == "refused"
    assert window.wrong
    assert all("Content Security Policy" in wrong or elsewhere in wrong for wrong in window.wrong)
    window.wrong.clear()


@pytest.mark.parametrize(
    "name",
    [
        *("export.json", "worker.js", "numpy_gpt2.zip"),
        *("pyodide.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json", "numpy-*.whl", "regex-*.whl"),
    ],
)
def test_a_missing_file_is_named(exported: Path, opened: Callable[[str], Watched], tmp_path: Path, name: str) -> None:
    shutil.copytree(exported, tmp_path / "page")
    (missing,) = (tmp_path / "page").glob(name)
    missing.unlink()
    with serving(tmp_path / "page") as address:
        window = opened(address)
        page = window.context.new_page()
        page.goto(address)
        expect(page.get_by_role("status")).to_contain_text(f"{name.partition('-*')[0]} ")
        expect(page.get_by_role("status")).to_contain_text("cannot be loaded")
        expect(page.locator("#work")).to_be_hidden()
        window.wrong.clear()


@pytest.mark.parametrize("missing", ["WebAssembly", "Worker"])
def test_a_browser_that_cannot_run_python(window: Watched, missing: str) -> None:
    window.context.add_init_script(f"delete globalThis.{missing}")
    page = window.context.new_page()
    page.goto(window.address)
    expect(page.get_by_role("status")).to_contain_text("This browser cannot run Python")


def test_a_server_that_does_not_allow_webassembly(exported: Path, window: Watched, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "page")
    index = tmp_path / "page" / "index.html"
    index.write_text(index.read_text(encoding="utf-8").replace(" 'wasm-unsafe-eval'", ""), encoding="utf-8")
    with serving(tmp_path / "page") as address:
        page = window.context.new_page()
        page.goto(address)
        expect(page.get_by_role("status")).to_contain_text("does not allow WebAssembly")


def test_a_page_that_is_opened_as_a_file_says_what_it_needs(exported: Path, window: Watched) -> None:
    page = window.context.new_page()
    page.goto((exported / "index.html").as_uri())
    expect(page.get_by_role("status")).to_contain_text("It needs JavaScript, and a web server")


VALUES = '''
import contextlib, json, tempfile
import numpy as np
import numpy_gpt2
from numpy_gpt2.inside import explain, zero

def values(text):
    """What the package computes, as plain data."""
    model = numpy_gpt2.load("tiny")
    with numpy_gpt2.trace() as t:
        logits = model.logits(text)
    with numpy_gpt2.patch({"h2/attn/a": zero(head=1)}):
        patched = model.logits(text)
    explained = explain(t, "h3/attn/weights", (0, 1, 4, 2))
    with tempfile.TemporaryDirectory() as folder:
        numpy_gpt2.save(model, folder + "/saved", dtype="float16")
        saved = numpy_gpt2.load(folder + "/saved")
    late = "naïve 東京 😀 \\ua7cb \\u1c8a \\U00010d50 \\u088f"  # letters of Unicode 16.0, and one that came after it
    return {
        "texts": model.generate(text, max_new_tokens=60, seed=3, num_return_sequences=3),
        "greedy": model.generate([text, "The wolf"], max_new_tokens=20, temperature=0),
        "ids": model.tokenizer.encode(late),
        "scores": [float(x) for scores in model.score(text) for x in np.ravel(scores.log_probabilities)],
        "steps": [[step.name, step.source, step.line] for step in t.steps],
        "arrays": {name: [float(x) for x in np.ravel(t[name])[:50] if np.isfinite(x)] for name in t},
        "patched": [float(x) for x in patched[-1][:50]],
        "explained": [explained.source, explained.formula],
        "saved": saved.generate(text, max_new_tokens=10, seed=1),
    }
'''


def test_the_package_computes_what_it_computes_on_the_desktop(page: Any) -> None:
    names: dict[str, Any] = {}
    exec(VALUES, names)
    expected = json.loads(json.dumps(names["values"](WHOLE)))
    program = """async ([values, text]) => {
        const { loadPyodide } = await import("./pyodide.mjs");
        const pyodide = await loadPyodide({ indexURL: new URL(".", location.href).href });
        await pyodide.loadPackage(["numpy", "regex"], { messageCallback: () => {} });
        pyodide.unpackArchive(await (await fetch("numpy_gpt2.zip")).arrayBuffer(), "zip", { extractDir: "/packages" });
        pyodide.runPython("import sys; sys.path.insert(0, '/packages')");
        pyodide.runPython(values);
        return pyodide.runPython(`json.dumps(values(${JSON.stringify(text)}))`);
    }"""
    found = json.loads(page.evaluate(program, [VALUES, WHOLE]))
    assert found.keys() == expected.keys()
    for name in ("texts", "greedy", "ids", "steps", "explained", "saved"):
        assert found[name] == expected[name], name
    for name in ("scores", "patched"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
    assert found["arrays"].keys() == expected["arrays"].keys()
    for name, array in expected["arrays"].items():
        np.testing.assert_allclose(found["arrays"][name], array, rtol=1e-4, atol=1e-4, err_msg=name)
