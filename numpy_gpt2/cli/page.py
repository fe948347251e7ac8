"""`numpy-gpt2 page`: a page in the browser, to write with the model; or the same page as static files."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import threading
import webbrowser
from functools import partial

from .. import checks
from ..gpt2 import load
from ..hub.download import in_bytes
from ..hub.names import EMBEDDED
from ..page.answers import Answers
from ..page.export import DELIVERY, write_page
from ..page.server import PageServer
from .arguments import add_model_options
from .folders import output_folder, reserved
from .loading import announce, load_model
from .process import show

log = logging.getLogger("numpy_gpt2")

HELP = "write with a model, on a page in the browser"
DESCRIPTION = """\
Write with GPT-2, on a page in the browser: the model suggests how a text may go on, and shows how likely each of its
tokens is. A second view looks inside: what the model computes for the text, line by line. Nothing leaves this machine.
The page is there until Ctrl-C.

With --export, the page becomes static files for any web server. Python then runs in the browser itself, by Pyodide, and
whoever opens the page needs to install nothing.
"""
EXAMPLES = """\
  numpy-gpt2 page
  numpy-gpt2 page --model gpt2 --port 8000
  numpy-gpt2 page --no-browser
  numpy-gpt2 page --host 192.168.1.5
  numpy-gpt2 page --export my-page
  numpy-gpt2 page --export my-page --pyodide pyodide --model ./new-model
"""

PORT = 8124


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("the page")
    group.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=PORT,
        help="the port of the page; a free one if this is taken, or 0 (default: %(default)s)",
    )
    group.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="an address of this machine at which others reach the page; a secret in its address then keeps out those "
        "who do not know it, but not those who can listen to the network (default: %(default)s, only this machine)",
    )
    group.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    group = parser.add_argument_group("the page as static files")
    group.add_argument(
        "--export",
        metavar="DIR",
        help="write the page to this folder, and serve nothing; the model is then tiny, unless --model names another, "
        "whose numbers are rounded to float16",
    )
    group.add_argument(
        "--pyodide",
        metavar="DIR",
        help="a folder with a release of Pyodide, of which the page gets a copy; or the address of such a folder "
        f"(default: {DELIVERY})",
    )
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C, or writes it as static files."""
    if args.export is not None:
        export(args)
        return
    if args.pyodide is not None:
        raise ValueError("--pyodide goes with --export: the page that is served needs no Pyodide")
    if not args.host:
        raise ValueError("--host must name an address of this machine")
    port = checks.check_whole_number("--port", args.port, at_most=2**16 - 1)
    model = load_model(args)
    answers = Answers(model, args.models_dir, partial(load, models_dir=args.models_dir, backend=args.backend))
    announce(model, args)
    with PageServer(answers.answer, args.host, port) as server:
        print(server.address, flush=True)
        if not args.no_browser:
            threading.Thread(target=open_browser, args=[server.address], daemon=True).start()
        server.serve_forever()


def export(args: argparse.Namespace) -> None:
    """Writes the page as static files, and says how to look at it.

    Raises:
        ImportError, OSError, ValueError: as for `load` and `write_page`.
    """
    folder = output_folder(args.export)
    model = load(args.model or EMBEDDED, args.models_dir, backend="numpy")
    with reserved(folder, ".lock", "exporting a page"):
        size = write_page(folder, model, DELIVERY if args.pyodide is None else args.pyodide)
    show(f"the page with {model.name} is in {folder}, {in_bytes(size)}; to try it:")
    show(f"  python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}")


def open_browser(address: str) -> None:
    """Opens an address in the user's browser, if there is one."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
