"""A process that makes no progress ends itself and records where it hung."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from pathlib import Path

from search.folders import TrialFolder


@contextlib.contextmanager
def watched(folder: Path, limit_s: float) -> Iterator[None]:
    """End this process if the block takes longer; `hang.txt` then shows what it was doing.

    The watchdog needs no interpreter lock, so that it also ends a process that hangs in a library.
    """
    hang = TrialFolder(folder).hang
    with hang.open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    hang.unlink(missing_ok=True)


def has_hung(folder: Path) -> bool:
    """Whether a process that worked in this folder ended itself."""
    hang = TrialFolder(folder).hang
    return hang.is_file() and hang.stat().st_size > 0
