"""Types of the command's options: a wrong value is a usage error, before any work is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def integer(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer not below ``lowest``, nor above ``highest``."""

    def integer(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        if highest is not None and value > highest:
            raise argparse.ArgumentTypeError(f"{value} is above {highest}")
        return value

    return integer


def file_to_write(text: str) -> str:
    """An argparse type: a path in a folder that exists, and no folder itself."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; it should be a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} lies in a folder that does not exist")
    return text
