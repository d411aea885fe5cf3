"""Where the noise of libraries goes: what Ray and Optuna write is kept, and not shown."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rich.console import Console

OURS = ("generalist_core", "search")
"""Whose warnings are for the user."""

STREAMS = (1, 2)
"""Standard output, where only results belong, and standard error."""


@contextmanager
def logged_to(path: Path, console: Console) -> Iterator[None]:
    """Keep in a file what libraries write while inside; our own warnings are shown as well.

    What is written by C++ or at exit of a thread passes Python's streams by. So the process's own
    standard streams lead into the file, and `console` alone still to where it led before. Errors
    are raised, and told outside. Only the main thread may do this to a process; another shows all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = logging.FileHandler(path, encoding="utf-8")
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with _handling("", kept), _redirected(path, console):
        told = _Telling(console)
        with _handling(OURS[0], told), _handling(OURS[1], told):
            yield


class _Telling(logging.Handler):
    """Tells the user of warnings."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.console.print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _handling(logger: str, handler: logging.Handler) -> Iterator[None]:
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)
        handler.close()


@contextmanager
def _redirected(path: Path, console: Console) -> Iterator[None]:
    """Lead the standard streams into a file, less what `console` writes."""
    _flush()
    file, before = console.file, {stream: os.dup(stream) for stream in STREAMS}
    place = before.get(_descriptor(file))
    if place is not None:
        console.file = open(place, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    with path.open("ab") as log:
        for stream in STREAMS:
            os.dup2(log.fileno(), stream)
    try:
        yield
    finally:
        _flush()
        with suppress(OSError):
            console.file.flush()
        for stream, place in before.items():
            os.dup2(place, stream)
            os.close(place)
        console.file = file


def _descriptor(file: IO[str]) -> int:
    """The number of an open file; -1 if it is none of the operating system's."""
    try:
        return file.fileno()
    except (AttributeError, OSError):
        return -1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nothing to be done about a full disk here
            stream.flush()
