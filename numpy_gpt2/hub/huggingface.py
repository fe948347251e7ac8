"""What Hugging Face's own programs share on this machine: the hub's address, the user's token, and the cache of models.

Source: https://huggingface.co/docs/huggingface_hub, "Environment variables" and "Understand caching".
"""

from __future__ import annotations

import os
import re
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")


def endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT`, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def token() -> str | None:
    """The user's token: `HF_TOKEN`, or what `hf auth login` has saved; None if there is none.

    Raises:
        ValueError: it cannot be a token. The message does not show it.
    """
    file = folder("HF_TOKEN_PATH", home() / "token")
    found = os.environ.get("HF_TOKEN", "").strip()
    if not found and file.is_file():
        found = file.read_text(encoding="utf-8", errors="replace").strip()
    if found and not re.fullmatch("[!-~]+", found):
        raise ValueError(f"the token for the hub, in HF_TOKEN or {file}, has characters that no token has")
    return found or None


def cached(repository: str, revision: str) -> Path | None:
    """The folder of a version of a model in the user's cache, which may lack files; None if there is no such folder.

    Args:
        repository: the repository, such as `openai-community/gpt2`.
        revision: a branch, a tag or a whole commit hash.
    """
    model = folder("HF_HUB_CACHE", home() / "hub") / f"models--{repository.replace('/', '--')}"
    reference = model / "refs" / revision
    commit = reference.read_text(encoding="ascii", errors="replace") if reference.is_file() else revision
    return model / "snapshots" / commit if COMMIT.fullmatch(commit) else None


def home() -> Path:
    """The folder of Hugging Face's programs."""
    return folder("HF_HOME", folder("XDG_CACHE_HOME", Path("~/.cache")) / "huggingface")


def folder(variable: str, default: Path) -> Path:
    """The path that an environment variable names, or else the default."""
    return Path(os.path.expanduser(os.environ.get(variable) or default))  # noqa: PTH111  as in names.expand
