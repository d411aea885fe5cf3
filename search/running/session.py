"""What surrounds a sweep while it runs: SIGTERM, and a folder that cannot be written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from search.errors import SweepInterruptedError
from search.study.failures import is_of_storage
from search.study.storage import WRITE_ERRORS
from search.wording import command_text


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: the first one ends the sweep in order.

    Enter it only after Ray has started, because Ray replaces any handler with its own. Outside of
    the main thread, where no handler can be set, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def write_errors_explained(folder: Path) -> Iterator[None]:
    """Say what to do if the sweep's folder is full or cannot be written.

    Raises:
        SweepInterruptedError: in place of an error of the storage or the file system.
    """
    try:
        yield
    except WRITE_ERRORS as error:
        if isinstance(error, OSError) and not is_of_storage(error):
            raise
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: Exception) -> SweepInterruptedError:
    """The error of a sweep whose folder is full, cannot be written, or is damaged."""
    return SweepInterruptedError(
        f"{folder} must have space and be writable, and its files whole, but: {error}. "
        "All finished work is kept. Mend that, then: "
        f"{command_text('generalist-search', 'resume', folder)}"
    )
