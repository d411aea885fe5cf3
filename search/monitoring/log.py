"""The output of libraries such as Ray and Optuna goes to a file instead of the terminal."""

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

from search.streams import dropping
from search.wording import printable

log = logging.getLogger(__name__)

OURS = ("generalist_core", "search")
"""The packages whose warnings are shown to the user."""

STREAMS = (1, 2)
"""The descriptors of standard output, which is for results only, and of standard error."""


@contextmanager
def redirect_output(path: Path, console: Console) -> Iterator[None]:
    """Write the output of libraries within the context to a file; our own warnings are also shown.

    The file also has our own messages of level INFO.

    Output of C++ code and of threads at their exit bypasses Python's streams. Therefore the
    standard streams of the process are redirected to the file, and only `console` keeps its
    destination. Errors are raised, and shown outside the context. Only the main thread may redirect
    the streams of a process; in other threads nothing is redirected. Neither is it if the file
    cannot be written, which a warning says.
    """
    kept = _file_handler(path) if threading.current_thread() is threading.main_thread() else None
    if kept is None:
        yield
        return
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with _added_handler("", kept), _redirected_streams(path, console):
        shown = _ConsoleHandler(console)
        with _added_handler(OURS[0], shown), _added_handler(OURS[1], shown):
            yield


def _file_handler(path: Path) -> logging.FileHandler | None:
    try:
        return logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        log.warning("The output of libraries is shown here: %s cannot be written: %s", path, error)
        return None


class _ConsoleHandler(logging.Handler):
    """Shows warnings on a console, without the traceback that the file has."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(record.getMessage())
        self.console.print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _added_handler(logger: str, handler: logging.Handler) -> Iterator[None]:
    to = logging.getLogger(logger)
    to.addHandler(handler)
    before = to.level
    to.setLevel(logging.INFO if logger in OURS else before)
    try:
        yield
    finally:
        to.setLevel(before)
        to.removeHandler(handler)
        handler.close()


@contextmanager
def _redirected_streams(path: Path, console: Console) -> Iterator[None]:
    """Redirect the standard streams to a file, except for what `console` writes."""
    _flush()
    file, before = console.file, {stream: os.dup(stream) for stream in STREAMS}
    place = before.get(_descriptor(file))
    if place is not None:
        console.file = dropping(place, "utf-8")
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
    """The descriptor of an open file; -1 if it is not a file of the operating system."""
    try:
        return file.fileno()
    except (AttributeError, OSError):
        return -1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk cannot be helped here
            stream.flush()
