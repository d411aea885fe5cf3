"""Standard streams that a command can always write to."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class _Dropping(io.FileIO):
    """A file that drops what cannot be written: the work is worth more than what is told of it."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def dropping(descriptor: int, encoding: str) -> TextIO:
    """A text stream to a descriptor, without errors if its disk is full or its terminal closed."""
    raw = _Dropping(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True
    )


def set_usable_streams() -> None:
    """Open standard streams that are closed, to nowhere, and let standard error drop its errors.

    Otherwise the next file that is opened would take the place of a closed stream.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    sys.stderr = dropping(2, encoding)
