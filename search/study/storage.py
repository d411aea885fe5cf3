"""The storage of a study: a journal in the sweep's folder, or an Optuna storage by its URL."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.study.journal import SealedJournal

WRITE_ERRORS = (OSError, optuna.exceptions.StorageInternalError)
"""The errors that a storage raises when it cannot be written."""


def open_storage(url: str | None, journal: Path) -> BaseStorage:
    """The Optuna storage at `url`, or the journal file if `url` is None.

    Raises:
        InvalidConfigError: there is no such storage.
        SweepFolderError: the journal is damaged.
    """
    if url is None:
        return _open_journal(journal)
    try:
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError, LookupError, ValueError) as error:
        raise _unusable(url, error) from error


def require_writable(url: str) -> None:
    """Check that the database at `url` can be written, by a study that is removed again.

    Raises:
        InvalidConfigError: it cannot.
    """
    storage = open_storage(url, Path())
    try:
        probe = f"generalist-search-{uuid.uuid4().hex}"
        storage.delete_study(storage.create_new_study([StudyDirection.MAXIMIZE], probe))
    except (SQLAlchemyError, *WRITE_ERRORS) as error:
        raise _unusable(url, error.__cause__ or error) from error


def _unusable(url: str, error: BaseException) -> InvalidConfigError:
    reason, *_ = [*str(error).splitlines(), type(error).__name__]
    return InvalidConfigError(
        f"`storage` must be an Optuna URL of a database that can be written, but got "
        f"{masked(url)!r}: {reason}. Make the folder of a file of SQLite, and both writable; for a "
        "server, start it, install its driver, and escape the password as in a URL."
    )


def masked(url: str) -> str:
    """Text without the password of the URL in it, as SQLAlchemy shows it, or of an invalid URL."""
    shown = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(?<=password=)[^&\s]*", "***", shown)


def place_of(url: str | None, journal: Path) -> str:
    """How messages name the storage at `url`, or the journal."""
    return str(journal) if url is None else masked(url)


def absolute_url(url: str) -> str:
    """The URL with an absolute path, if it is that of a file of SQLite; any other as it is."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return url
    file = parsed.database
    if parsed.get_backend_name() != "sqlite" or not file or file.startswith((":memory:", "file:")):
        return url
    return parsed.set(database=str(Path(file).absolute())).render_as_string(hide_password=False)


def _open_journal(journal: Path) -> BaseStorage:
    try:
        return JournalStorage(SealedJournal(journal))
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise SweepFolderError(
            f"{journal} must be an Optuna journal, but holds an invalid record "
            f"({type(error).__name__}: {error}). Restore the file from a copy."
        ) from error


def mend_journal(journal: Path) -> None:
    """Remove the lock file that a crash leaves beside a journal.

    Only the one process that runs the sweep may mend its journal.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
