"""Memory that is freed and kept for the next arrays."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
