"""How fast the page is: `python -m benchmarks.page`.

What the page adds to the time of a token: a model of the shape of the 124M writes the same text by `GPT2.generate` and
by the server of the page, whose reader is another process, in turns. And in a browser that is already open, if
Playwright is there: the time from the command to the first paint of the page, and from pressing Tab to the first
suggested word, on `tiny`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy_gpt2
from numpy_gpt2.gpt2 import GPT2
from numpy_gpt2.page.answers import Answers
from numpy_gpt2.page.server import PageServer
from numpy_gpt2.tokenizer import Tokenizer

from .__main__ import SIZES, processor

TEXT = "Once upon a time there was a king who had three daughters, and the youngest of them was so clever that"
READY = "() => !document.getElementById('text').readOnly && document.getElementById('model').value"
PAINTED = "performance.timeOrigin + performance.getEntriesByName('first-contentful-paint')[0].startTime"
TAB = """() => new Promise((done) => {
  let began;
  addEventListener("keydown", () => (began = performance.now()), { capture: true, once: true });
  const list = document.getElementById("popup-list");
  const look = () => list.textContent.replaceAll("…", "").trim() && done(performance.now() - began);
  new MutationObserver(look).observe(list, { childList: true, characterData: true, subtree: true });
})"""
READER = """\
import http.client, json, sys, time
host, request = sys.argv[1:]
connection = http.client.HTTPConnection(host)
connection.request("POST", "/answer", request, {"Content-Type": "application/json"})
moments = []
for line in connection.getresponse():
    if "ids" in json.loads(line):
        moments.append(time.perf_counter())
print(json.dumps(moments))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures, with the name of the processor."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="Measure how fast the page is.")
    parser.add_argument("--size", choices=SIZES, default="124M", help="the shape of the model (default: 124M)")
    parser.add_argument("--tokens", type=int, default=32, help="how many tokens it writes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="figures are medians of N rounds (default: %(default)s)")
    parser.add_argument("--browser", metavar="FILE", help="the browser to use; without it, only tokens are measured")
    args = parser.parse_args(arguments)
    print(processor())
    model = numpy_gpt2.init(SIZES[args.size], seed=1)
    model = GPT2(model.hparams, model.params, Tokenizer.gpt2(), args.size)
    pairs = list(in_turns(model, args.tokens, args.rounds))
    print(f"one token, {args.size}: {show(pairs, 1000, 'ms', ('generate', 'the page'))}")
    if args.browser:
        found = in_browser(args.browser, args.rounds)
        for what, seconds in found.items():
            print(f"{what}, on tiny: {1000 * statistics.median(seconds):.0f} ms ({1000 * max(seconds):.0f} at most)")


def show(pairs: Sequence[tuple[float, float]], factor: float, unit: str, names: tuple[str, str]) -> str:
    """The medians of two programs, and that of their ratios."""
    medians = [
        f"{name} {factor * statistics.median(each):.2f} {unit}"
        for name, each in zip(names, zip(*pairs, strict=True), strict=True)
    ]
    ratio = statistics.median(second / first for first, second in pairs)
    return f"{', '.join(medians)}; {names[1]} takes {ratio:.3f} times as long"


def in_turns(model: GPT2, n_tokens: int, n_rounds: int) -> list[tuple[float, float]]:
    """Seconds from one token to the next, by `GPT2.generate` and by the page, in each round."""
    with PageServer(Answers(model).answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ways: list[Callable[[], list[float]]] = [
            lambda: moments_of_generate(model, n_tokens),
            lambda: moments_of_page(server.port, n_tokens),
        ]
        pairs = [tuple(between(way()) for way in ways) for _ in range(n_rounds + 1)]
        server.shutdown()
    return [(first, second) for first, second in pairs[1:]]


def between(moments: Sequence[float]) -> float:
    """The median of the times from one moment to the next."""
    return statistics.median(after - before for before, after in itertools.pairwise(moments))


def moments_of_generate(model: GPT2, n_tokens: int) -> list[float]:
    """When each token is there."""
    moments: list[float] = []
    model.generate(TEXT, n_tokens, seed=1, progress=lambda n: moments.append(time.perf_counter()))
    return moments


def moments_of_page(port: int, n_tokens: int) -> list[float]:
    """When each token is there, for a reader in another process."""
    request = {"kind": "suggest", "text": TEXT, "n": 1, "max_new_tokens": n_tokens, "seed": 1}
    command = [sys.executable, "-c", READER, f"127.0.0.1:{port}", json.dumps(request)]
    return [float(x) for x in json.loads(subprocess.run(command, check=True, capture_output=True).stdout)]


def in_browser(browser: str, n_rounds: int) -> dict[str, list[float]]:
    """Seconds of what somebody waits for in a browser that is open."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser) as chromium:
        for _ in range(n_rounds + 1):
            began = time.time()
            command = [sys.executable, "-m", "numpy_gpt2", "page", "--no-browser", "--port", "0"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
                assert server.stdout
                page = chromium.new_page()
                page.goto(server.stdout.readline().strip())
                page.wait_for_function(READY)
                ready = time.time()
                page.type("#text", TEXT)
                page.wait_for_load_state("networkidle")
                tab = page.evaluate_handle(f"() => ({{ promise: ({TAB})() }})")
                page.keyboard.press("Tab")
                waits = {
                    "from the command to the first paint": page.evaluate(PAINTED) / 1000 - began,
                    "from the command to a field to write in": ready - began,
                    "from Tab to the first suggested word": tab.evaluate("({ promise }) => promise") / 1000,
                }
                page.close()
                server.terminate()
            for what, seconds in waits.items():
                found.setdefault(what, []).append(seconds)
    return {what: seconds[1:] for what, seconds in found.items()}


if __name__ == "__main__":
    main()
