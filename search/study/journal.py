"""The journal of a study: a journal file of Optuna whose records are sealed one after another."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from generalist_core.fingerprints import content_digest
from search.errors import SweepFolderError

_SEALED = re.compile(rb'(\{.*),"checksum":"([0-9a-f]{32})"\}\n')
"""A line that a sweep wrote: a JSON object whose last member is its checksum."""


class SealedJournal(BaseJournalBackend):
    """A journal file in which each record has a checksum over itself and all records before it.

    A record that was changed, doubled, removed or moved is found wherever the file is read; only
    records that are removed at the end leave no trace, and an earlier state of the study. Optuna
    ignores the checksum. A record of another program, such as a note in optuna-dashboard, has none,
    and the next record seals it. An incomplete last line has not been written: a reader ignores it,
    and the next record replaces it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or begin an empty one."""
        if not path.exists():
            path.touch()
        self.path = path
        self._lock = JournalFileSymlinkLock(str(path))
        self._rewind()

    def _rewind(self) -> None:
        self._n_read = self._end = 0
        self._checksum = ""
        self._unread: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """The records from that number on, the first being 0.

        Raises:
            SweepFolderError: the file is damaged.
        """
        if log_number_from < self._n_read - len(self._unread):
            self._rewind()
        with self.path.open("rb") as file:
            self._read(file)
        first = self._n_read - len(self._unread)
        records, self._unread = self._unread[log_number_from - first :], []
        return records

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Write records after those in the file, and in place of an incomplete last line.

        Raises:
            SweepFolderError: the file is damaged.
        """
        self._lock.acquire()
        try:
            with self.path.open("rb+") as file:
                self._read(file)
                file.seek(self._end)
                file.truncate()
                file.write(self._sealed(logs))
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def _sealed(self, logs: Sequence[dict[str, Any]]) -> bytes:
        lines, checksum = b"", self._checksum
        for log in logs:
            body = json.dumps(log, separators=(",", ":")).encode().removesuffix(b"}")
            checksum = _chained(checksum, body)
            lines += body + f',"checksum":"{checksum}"}}\n'.encode()
        return lines

    def _read(self, file: BinaryIO) -> None:
        """Take in the complete lines after those that have been read."""
        if os.fstat(file.fileno()).st_size < self._end:
            raise SweepFolderError(f"{self.path} must only grow, but was cut while it was in use.")
        file.seek(self._end)
        for line in file:
            if line.endswith(b"\n"):
                self._take(line)
                continue
            if self._checksum_of(line[:-1] + b"\n") is not None:
                raise self._damaged()  # it was complete: its end has changed
            break  # the rest may be in the middle of writing

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged() from error
        if not (isinstance(record, dict) and "op_code" in record):
            raise self._damaged()
        is_own = "checksum" in record
        checksum = self._checksum_of(line) if is_own else _chained(self._checksum, line)
        if checksum is None:
            raise self._damaged()
        self._checksum = checksum
        self._end += len(line)
        self._n_read += 1
        self._unread.append(record)

    def _checksum_of(self, line: bytes) -> str | None:
        """The checksum of the next line; None if the line has not this one."""
        sealed = _SEALED.fullmatch(line)
        if sealed is None:
            return None
        checksum = _chained(self._checksum, sealed[1])
        return checksum if checksum.encode() == sealed[2] else None

    def _damaged(self) -> SweepFolderError:
        line = self._n_read + 1
        cure = "Restore the file from a copy"
        if line > 1:
            cure += f", or remove line {line} and all lines after it: those before it are whole, "
            cure += "and are an earlier state of the sweep"
        return SweepFolderError(
            f"{self.path} must be as it was written, but its line {line} is damaged: it, or a line "
            f"before it, was changed, doubled, removed or moved. {cure}."
        )


def _chained(checksum: str, record: bytes) -> str:
    """The checksum of a record that follows the one with `checksum`."""
    return content_digest(checksum, record)[:32]
