"""Memory that is freed and kept for the next arrays; how much this process takes, and how much is free."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from numpy_gpt2.machine import memory

# Prints how many pages the system hands out while arrays of 16 MB are made, written and dropped.
CODE = """
import resource, sys
import numpy as np
import numpy_gpt2
if sys.argv[1] == "kept":
    numpy_gpt2.init(numpy_gpt2.HParams(n_vocab=11, n_ctx=4, n_embd=2, n_head=1, n_layer=1))
np.ones(2**21)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**21)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only this C library returns such memory to the system")
def test_with_a_model_freed_memory_is_not_asked_for_again() -> None:
    returned, kept = (
        int(subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True).stdout)
        for word in ("returned", "kept")
    )
    assert kept < 100
    assert returned > 10 * max(kept, 1)


MEMINFO = "MemTotal: 4000000 kB\nMemFree:     100 kB\nMemAvailable:    2000000 kB\nHugePages_Total:   0\n"
GIB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the files of the system are looked for."""
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / path.removeprefix("/"))
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def group(limit: str | int, used: int, of_files: str = "") -> dict[str, str]:
    """The files of a control group."""
    values = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": of_files}
    return {f"sys/fs/cgroup/{name}": content for name, content in values.items()}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it")
def test_this_process_takes_some_memory_and_some_is_free() -> None:
    used, available = memory.used_memory(), memory.available_memory()
    assert used is not None
    assert available is not None
    assert 2**23 < used < 2**40
    assert used % 1024 == 0
    assert 0 < available < 2**48


def test_where_the_system_says_nothing_neither_is_known(system: Path) -> None:
    assert memory.used_memory() is None
    assert memory.available_memory() is None


def test_used_memory(system: Path) -> None:
    write(system, {"proc/self/status": "Name:\tpython\nVmRSSish:\t1 kB\nVmRSS:\t   12345 kB\nThreads:\t3\n"})
    assert memory.used_memory() == 12345 * 1024


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 2_000_000 * 1024),
        (group("max", 10**9), 2_000_000 * 1024),
        (group(GIB, 10**8), GIB - 10**8),
        (group(GIB, 10**8, "anon 5\ninactive_file 30000000\nactive_file 7\n"), GIB - 10**8 + 30_000_000),
        (group(100 * GIB, 10**8), 2_000_000 * 1024),
        (group("nonsense", 10**8), 2_000_000 * 1024),
        ({"sys/fs/cgroup/memory.max": "1000"}, 2_000_000 * 1024),
    ],
    ids=["no group", "no limit", "a limit", "files can be dropped", "a high limit", "nonsense", "half of the files"],
)
def test_available_memory_is_that_of_the_system_or_of_the_container(
    system: Path, files: dict[str, str], expected: int
) -> None:
    write(system, {"proc/meminfo": MEMINFO, **files})
    assert memory.available_memory() == expected


def test_available_memory_of_a_container_alone(system: Path) -> None:
    write(system, group(GIB, 10**8))
    assert memory.available_memory() == GIB - 10**8


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [("HugePages_Total", 1024, 0), ("MemFree", 1024, 102_400), ("MemFree", 1, 100), ("Mem", 1024, None)],
)
def test_a_field_of_a_file(tmp_path: Path, name: str, unit: int, expected: int | None) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert memory.field_of(tmp_path / "meminfo", name, unit) == expected
    assert memory.field_of(tmp_path / "nowhere", name, unit) is None
