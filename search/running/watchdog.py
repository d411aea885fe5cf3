"""A process that makes no progress ends itself; one that stands still is seen by others.

A process that hangs can record where. One that was stopped, or waits for a disk or a driver that
does not answer, cannot: its heartbeat stops, and the driver ends it (see
`search.running.ray_heartbeats`).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from search.folders import TrialFolder

BEATS = 12
"""Heartbeats in the time after which a process without one is ended."""

N_TOKEN = 16
"""Characters of the token at the beginning of a heartbeat."""


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


def has_ended_itself(folder: Path) -> bool:
    """Whether a process that worked in this folder ended itself."""
    hang = TrialFolder(folder).hang
    return hang.is_file() and hang.stat().st_size > 0


class Heartbeat:
    """Shows others that this process works on a trial: a thread changes a file, again and again.

    The file holds the token of the process that began last. A process that stood still and wakes
    up to find another's token has lost the trial, and is ended before it can write more.
    """

    def __init__(
        self, folder: Path, limit_s: float, on_lost: Callable[[], None] = lambda: os._exit(1)
    ) -> None:
        """Take the trial in `folder` over; others wait `limit_s` for a change of the file."""
        self.file, self.every_s, self.on_lost = (
            TrialFolder(folder).heartbeat,
            limit_s / BEATS,
            on_lost,
        )
        self.token = secrets.token_hex(N_TOKEN // 2)
        self.n_beats = 0
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and remove the file, unless it is another's by now."""
        self._stops.set()
        self._thread.join()
        with contextlib.suppress(FileNotFoundError):
            if self.file.read_text(encoding="ascii").startswith(self.token):
                self.file.unlink()

    def _run(self) -> None:
        while True:
            try:
                is_own = self._beat()
            except OSError:
                is_own = True  # the training meets the same disk, and reports it
            if not is_own:
                self.on_lost()
                return
            if self._stops.wait(self.every_s):
                return

    def _beat(self) -> bool:
        """Change the file in place, which needs no space; returns whether the trial is still ours.

        The first beat takes the trial over.
        """
        with open(
            os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="ascii"
        ) as file:
            found = file.read(N_TOKEN)
            if self.n_beats and found not in ("", self.token):
                return False
            file.seek(0)
            self.n_beats += 1
            file.write(f"{self.token} {self.n_beats:012}\n")
        return True
