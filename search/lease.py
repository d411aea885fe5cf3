"""The right to write the study and the report of a sweep, which one process has at a time.

It needs no locks of the file system. It is a file with a token of its holder, who renews it.
A process that stands still can lose it, and finds that out before it writes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from search.errors import SweepFolderError, SweepInterruptedError

LEASE_S = 60.0
"""A lease that is not renewed for this long, on the clock of the one who looks, is taken over."""

RENEWALS = 60
"""Renewals in that time; a process that is refused has waited for one."""

POLL_S = 0.1


def soft_lease(path: Path, duration_s: float, n_renewals: int) -> SoftFileLease:
    """A lease for all threads of a process, renewed so often in `duration_s`, that never waits."""
    return SoftFileLease(
        path,
        lease_duration=duration_s,
        heartbeat_interval=duration_s / n_renewals,
        timeout=0,
        thread_local=False,
    )


class Lease:
    """A lease of a file.

    A holder on this machine is dead once its process has ended. Any other is dead if its lease is
    not renewed for `duration_s`; it is the same for all who use the file.
    """

    def __init__(self, path: Path, duration_s: float = LEASE_S) -> None:
        self.path = path
        self._lease = soft_lease(path, duration_s, RENEWALS)

    def acquire(self, *, waits: bool = False) -> bool:
        """Take the lease; returns False once its holder is seen to be alive.

        With `waits`, wait for a living holder to release it.
        """
        before, since = self._renewal(), time.monotonic()
        while True:
            with contextlib.suppress(Timeout):
                self._lease.acquire()
                return True
            elapsed, now = time.monotonic() - since, self._renewal()
            if now != before:
                if not waits and now is not None:
                    return False
                before, since = now, time.monotonic()
            elif elapsed > 1.5 * self._lease.lease_duration:  # a torn file, which names nobody
                self._lease.force_break()
            time.sleep(POLL_S)

    def require(self) -> None:
        """Check that this process still has the lease.

        Raises:
            SweepInterruptedError: another process has taken it over, or the file was removed.
        """
        token = self._lease.token
        try:
            is_own = token is not None and token in self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            is_own = False
        if not is_own:
            raise SweepInterruptedError(
                f"{self.path} must name the process that runs the sweep, but names another, or was "
                "removed. This one has stopped, and has recorded nothing since."
            )

    def release(self) -> None:
        """Let others take the lease; one that was lost stays with its holder."""
        self._lease.release()

    def _renewal(self) -> tuple[int, int] | None:
        """What changes with each renewal; opening the file gets it fresh from a shared folder."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns


def is_held(path: Path) -> bool:
    """Whether a process seems to hold the lease of a file, for one who must not write there.

    It has renewed it within `LEASE_S`, and has not ended if it is on this machine.
    """
    owner = soft_lease(path, LEASE_S, RENEWALS).owner
    with contextlib.suppress(FileNotFoundError):
        if owner is None or time.time() - path.stat().st_mtime > LEASE_S:
            return False
        return owner.hostname != socket.gethostname() or _is_alive(owner.pid)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True


@contextlib.contextmanager
def leased(path: Path, *, waits: bool) -> Iterator[Lease]:
    """Hold the lease of a file; with `waits`, after another holder has released it.

    Raises:
        SweepFolderError: another process holds it.
    """
    lease = Lease(path)
    if not lease.acquire(waits=waits):
        raise SweepFolderError(
            f"{path.parent} must be run by one process at a time, but another runs it."
        )
    try:
        yield lease
    finally:
        lease.release()
