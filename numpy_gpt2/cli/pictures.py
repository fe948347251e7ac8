"""Pictures that a command is to draw: checked before it computes anything."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

FORMATS = (".png", ".svg", ".pdf")


def drawing(file: Path | None, module: str) -> Any:
    """The module that draws, or None if no picture is wanted.

    Args:
        file: where the picture is to be.
        module: its name in this package, such as `inside.figures`.

    Raises:
        OSError: the folder of the picture does not exist, or the picture has the name of a folder.
        ImportError: matplotlib is not installed.
        ValueError: pictures are not drawn in this format.
    """
    if file is None:
        return None
    if file.suffix.lower() not in FORMATS:
        raise ValueError(f"a picture cannot be written to {file}: the name must end in {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent} for the picture")
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder: name a file in it for the picture")
    try:
        return importlib.import_module(f"...{module}", __name__)
    except ImportError as error:
        raise ImportError(f'a picture needs matplotlib ({error}): pip install "numpy_gpt2[plot]"') from None
