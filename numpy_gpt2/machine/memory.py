"""The memory of this process."""

from __future__ import annotations

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
