"""`numpy-gpt2 page`: a page in the browser, to write with the model."""

from __future__ import annotations

import argparse
import contextlib
import logging
import threading
import webbrowser
from functools import partial

from .. import checks
from ..gpt2 import load
from ..page.answers import Answers
from ..page.server import PageServer
from .arguments import add_model_options
from .loading import announce, load_model

log = logging.getLogger("numpy_gpt2")

HELP = "write with a model, on a page in the browser"
DESCRIPTION = """\
Write with GPT-2, on a page in the browser: the model suggests how a text may go on, and shows how likely each of its
tokens is. Nothing leaves this machine. The page is there until Ctrl-C.
"""
EXAMPLES = """\
  numpy-gpt2 page
  numpy-gpt2 page --model gpt2 --port 8000
  numpy-gpt2 page --no-browser
  numpy-gpt2 page --host 192.168.1.5
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
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
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


def open_browser(address: str) -> None:
    """Opens an address in the user's browser, if there is one."""
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
