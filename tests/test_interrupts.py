"""What Ctrl-C does while a command imports its modules, and from then on."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import signal
signal.signal(signal.SIGINT, signal.{before})
from numpy_gpt2 import interrupts
imported = signal.getsignal(signal.SIGINT)
interrupts.raise_from_now_on()
print(getattr(imported, "name", "raises"), getattr(signal.getsignal(signal.SIGINT), "name", "raises"))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [("default_int_handler", "SIG_DFL raises"), ("SIG_IGN", "SIG_IGN SIG_IGN")],
    ids=["by default it ends the program silently, then raises", "in the background it stays ignored"],
)
def test_ctrl_c(before: str, after: str) -> None:
    args = [sys.executable, "-c", CODE.format(before=before)]
    result = subprocess.run(args, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == after
