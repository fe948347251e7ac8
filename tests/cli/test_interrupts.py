"""What Ctrl-C does while the command imports its modules, and afterwards."""

from __future__ import annotations

import signal
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


# Does something within `deferred`, and says before and afterwards whether there was a Ctrl-C and what it does.
DEFERRED = """
import signal
from numpy_gpt2.cli import interrupts

def say(interrupted):
    print(interrupted(), getattr(signal.getsignal(signal.SIGINT), "__name__", signal.getsignal(signal.SIGINT)))

signal.signal(signal.SIGINT, signal.{before})
try:
    with interrupts.deferred("finishing this step") as interrupted:
        print(interrupted())
        {what}
except ZeroDivisionError:
    print("an error")
say(interrupted)
"""


def deferred(what: str, before: str = "default_int_handler") -> subprocess.CompletedProcess[str]:
    code = DEFERRED.format(what=what, before=before)
    return subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False)


CTRL_C = "signal.raise_signal(signal.SIGINT)"


@pytest.mark.parametrize(
    ("what", "output", "notices"),
    [
        ("pass", "False\nFalse default_int_handler\n", 0),
        (f"{CTRL_C}; print('the step')", "False\nthe step\nTrue default_int_handler\n", 1),
        (f"{CTRL_C}; 1 / 0", "False\nan error\nTrue default_int_handler\n", 1),
    ],
    ids=["none", "one", "one before an error"],
)
def test_ctrl_c_is_remembered_until_the_step_is_finished(what: str, output: str, notices: int) -> None:
    result = deferred(what)
    assert (result.returncode, result.stdout) == (0, output)
    assert result.stderr == "\nnumpy_gpt2: finishing this step\n" * notices


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    result = deferred(f"{CTRL_C}; print('the step', flush=True); {CTRL_C}; print('still here')")
    assert (result.returncode, result.stdout) == (-signal.SIGINT, "False\nthe step\n")
    assert result.stderr == "\nnumpy_gpt2: finishing this step\n"


# The same for SIGTERM, with which a system asks processes to end.
TERM = """
import signal
from numpy_gpt2.cli import interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.{before})
with interrupts.deferred("finishing this step") as interrupted:
    {what}
print(interrupted(), getattr(signal.getsignal(signal.SIGTERM), "name", None))
"""
SIGTERM = "signal.raise_signal(signal.SIGTERM)"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    ("what", "before", "status", "output", "notices"),
    [
        ("pass", "SIG_DFL", 0, "False SIG_DFL\n", 0),
        (f"{SIGTERM}; print('the step')", "SIG_DFL", 0, "the step\nTrue SIG_DFL\n", 1),
        (f"{SIGTERM}; print('the step'); {SIGTERM}", "SIG_DFL", -signal.SIGTERM, "the step\n", 1),
        (f"{CTRL_C}; {SIGTERM}; print('the step')", "SIG_DFL", 0, "the step\nTrue SIG_DFL\n", 2),
        (f"{SIGTERM}; print('the step')", "SIG_IGN", 0, "the step\nFalse SIG_IGN\n", 0),
    ],
    ids=["none", "one", "two", "after Ctrl-C", "ignored"],
)
def test_sigterm_is_remembered_as_well(what: str, before: str, status: int, output: str, notices: int) -> None:
    code = TERM.format(what=what, before=before)
    result = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (status, output)
    assert result.stderr == "\nnumpy_gpt2: finishing this step\n" * notices


def test_a_job_in_the_background_ignores_it_also_there() -> None:
    result = deferred(CTRL_C, before="SIG_IGN")
    assert (result.returncode, result.stdout.splitlines()[0], result.stderr) == (0, "False", "")
    assert result.stdout.splitlines()[1].startswith("False ")


# Handles nothing itself: the main thread gets KeyboardInterrupt as ever.
IN_A_THREAD = """
import signal
import threading
from numpy_gpt2.cli import interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)

def work():
    with interrupts.deferred("finishing this step") as interrupted:
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, interrupted())

thread = threading.Thread(target=work)
thread.start()
thread.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("raised")
"""


def test_in_another_thread_it_is_not_deferred() -> None:
    assert output(IN_A_THREAD) == ["True", "False", "raised"]
