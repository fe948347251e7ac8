"""What the tests of interrupted saves share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def steps_patched(patch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Calls `before()` before each call that changes what is on the disk."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before()
            return original(*args, **kwargs)

        return call

    for owner, names in ((Path, ["replace", "mkdir", "unlink"]), (os, ["fsync", "link"]), (shutil, ["rmtree"])):
        for name in names:
            patch.setattr(owner, name, wrap(getattr(owner, name)))
