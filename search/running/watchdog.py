"""A process that makes no progress ends itself, and leaves word of where it hung."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from pathlib import Path

HANG = "hang.txt"


@contextlib.contextmanager
def watched(folder: Path, limit_s: float) -> Iterator[None]:
    """End this process if the block takes longer; what it was doing is then in `hang.txt`.

    The watch needs neither Python nor its lock: it also ends what hangs in a library.
    """
    with (folder / HANG).open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    (folder / HANG).unlink(missing_ok=True)


def has_hung(folder: Path) -> bool:
    """Whether a process ended itself there."""
    place = folder / HANG
    return place.is_file() and place.stat().st_size > 0
