"""What Ctrl-C does while the command imports its modules, and afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

HANDLERS = """
import signal
signal.signal(signal.SIGINT, signal.{before})
from numpy_gpt2.cli import interrupts
interrupts.end_silently()
importing = signal.getsignal(signal.SIGINT)
interrupts.raise_again()
print(getattr(importing, "name", "raises"), getattr(signal.getsignal(signal.SIGINT), "name", "raises"))
"""

# Prints the handler when NumPy is imported, and then in place of running the subcommand.
COMMAND = """
import signal
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "numpy":
            print_handler()

def print_handler(command=None):
    print(getattr(signal.getsignal(signal.SIGINT), "name", "raises"))

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
from numpy_gpt2.cli import main
main.process.run = print_handler
main.main(["a prompt"])
"""


# Calls the command from Python with arguments that it refuses.
REFUSED = """
import signal
from numpy_gpt2.cli.main import main
try:
    main(["--no-such-option"])
except SystemExit:
    print(getattr(signal.getsignal(signal.SIGINT), "name", "raises"))
"""


# Imports and calls the command in another thread.
THREAD = """
import threading

def run():
    from numpy_gpt2.cli.main import main
    print(main(["The king", "--model", "tiny", "--max-new-tokens", "1"]))

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def output(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("before", "after"),
    [("default_int_handler", ["SIG_DFL", "raises"]), ("SIG_IGN", ["SIG_IGN", "SIG_IGN"])],
    ids=["by default it ends the program silently, then raises", "in a background job it stays ignored"],
)
def test_ctrl_c(before: str, after: list[str]) -> None:
    assert output(HANDLERS.format(before=before)) == after


def test_the_command_ends_silently_while_it_imports_numpy() -> None:
    assert output(COMMAND) == ["SIG_DFL", "raises"]


def test_another_thread_than_the_main_one_leaves_it_alone() -> None:
    assert output(THREAD)[-1] == "0"


def test_ctrl_c_raises_again_after_arguments_that_are_refused() -> None:
    assert output(REFUSED) == ["raises"]


FINALIZER = """
import signal
from numpy_gpt2.cli import interrupts

class Connection:
    def __del__(self):
        {what}

interrupts.raise_again()
connection = Connection()
del connection
print("still here")
"""


@pytest.mark.parametrize(
    ("what", "status", "out", "err"),
    [("signal.raise_signal(signal.SIGINT)", 130, "", ""), ("1 / 0", 0, "still here\n", "ZeroDivisionError")],
)
def test_ctrl_c_in_a_finalizer_ends_silently(what: str, status: int, out: str, err: str) -> None:
    """There Python would print a traceback, and go on."""
    code = FINALIZER.format(what=what)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (status, out)
    assert err in result.stderr
    assert bool(err) == bool(result.stderr)
