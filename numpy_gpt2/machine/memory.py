"""The memory of this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory for the next arrays, and not return it to the operating system.

    A pass makes many arrays of some megabytes and drops them at once. On Linux, the C library returns such
    memory to the system and asks for it again, and the system hands it out page by page, which takes longer
    than most of the arithmetic. The C library keeps blocks up to the size of the largest one ever freed, at
    most 32 MB. So this frees one block of that size, which is never written to. The effect lasts for the
    whole process. On other systems there is none.

    Source: M_MMAP_THRESHOLD in mallopt(3).
    """
    np.empty(2**25 - 2**16, np.uint8)


def used_memory() -> int | None:
    """How many bytes of physical memory this process takes; None where the system does not say, as Linux does."""
    return field_of(Path("/proc/self/status"), "VmRSS")


def peak_memory() -> int | None:
    """The most bytes of physical memory that this process has taken; None where the system does not say."""
    return field_of(Path("/proc/self/status"), "VmHWM")


def available_memory() -> int | None:
    """How many bytes of physical memory programs may still take; None where the system does not say, as Linux does.

    In a container with a limit of its own (a control group of Linux, version 2), the lower one counts.
    """
    available, group = field_of(Path("/proc/meminfo"), "MemAvailable"), Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())  # "max" without a limit
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    of_files = field_of(group / "memory.stat", "inactive_file", unit=1) or 0  # which can be dropped
    left = limit - used + of_files
    return left if available is None else min(left, available)


def field_of(file: Path, name: str, unit: int = 1024) -> int | None:
    """The number after a name in one of the system's files, in bytes; None if it is not there."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return None
    return next((unit * int(words[1]) for words in lines if words[:1] in ([name], [f"{name}:"])), None)
