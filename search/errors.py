"""The errors of a sweep other than an invalid configuration."""

from __future__ import annotations


class SweepFolderError(OSError):
    """A folder or file that cannot be used as requested; the message says what to do."""


class SweepInterruptedError(RuntimeError):
    """The work was ended from outside before it was done; the message says how to go on."""


class WorkerError(RuntimeError):
    """A worker failed to return a result that is needed."""
