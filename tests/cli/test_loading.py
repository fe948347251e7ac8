"""What every subcommand that loads a model does with `--threads`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs the command, then prints how many threads each matrix library has.
CODE = """
import json, sys
from numpy_gpt2.cli.main import main
status = main()
from threadpoolctl import threadpool_info
threads = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
print(json.dumps([status, threads]), file=sys.stderr)
"""


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("command", ["generate", "score", "explore lens"])
def test_threads(command: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("The king was")
    args = [*command.split(), "story.txt", "--model", "tiny", "--threads", str(n)]
    result = subprocess.run([sys.executable, "-c", CODE, *args], capture_output=True, text=True, check=True)
    status, threads = json.loads(result.stderr)
    if not threads:
        pytest.skip("NumPy multiplies matrices with a library whose threads cannot be set at run time")
    assert (status, {*threads}) == (0, {n})
