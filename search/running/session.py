"""What surrounds a sweep while it runs: signals, and a folder that cannot be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from search.errors import SweepFolderError, SweepInterruptedError
from search.folders import SweepFolder
from search.interruption import Interrupted, interruptible
from search.study.failures import is_of_storage
from search.study.storage import WRITE_ERRORS
from search.wording import PROGRAM, command_text


@contextlib.contextmanager
def ended_by_signals(folder: Path) -> Iterator[None]:
    """Let signals end the sweep in order, see `search.interruption`.

    Raises:
        SweepInterruptedError: in place of `Interrupted`, once the folder has a request to resume.
    """
    with interruptible():
        try:
            yield
        except Interrupted as error:
            if not SweepFolder(folder).request.is_file():
                raise
            raise interrupted(folder) from error


def interrupted(folder: Path) -> SweepInterruptedError:
    """The error of a sweep that was ended from outside; it says how to go on."""
    again = command_text(PROGRAM, "resume", folder)
    return SweepInterruptedError(f"Interrupted. Continue: {again}")


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


@contextlib.contextmanager
def folder_in_place(folder: Path) -> Iterator[None]:
    """Tell an error of the file system that follows from a removed folder apart from others.

    Raises:
        SweepFolderError: in place of it, if the folder is gone.
    """
    try:
        yield
    except OSError as error:
        if folder.is_dir():
            raise
        raise SweepFolderError(
            f"{folder} must stay in place while it is worked on, but was removed or moved: {error}"
        ) from error


def removed(folder: Path) -> SweepInterruptedError:
    """The error of a sweep whose folder was removed, or moved, while it ran."""
    return SweepInterruptedError(
        f"{folder} must stay in place while its sweep runs, but was removed or moved. The sweep "
        f"has ended. Put the folder back, then: {command_text(PROGRAM, 'resume', folder)}"
    )


def cannot_write(folder: Path, error: Exception) -> SweepInterruptedError:
    """The error of a sweep whose folder is full, cannot be written, or is damaged."""
    return SweepInterruptedError(
        f"{folder} must have space and be writable, and its files whole, but: {error}. "
        "All finished work is kept. Mend that, then: "
        f"{command_text(PROGRAM, 'resume', folder)}"
    )
