"""What can go wrong with a sweep, other than its configuration."""

from __future__ import annotations


class SweepFolderError(OSError):
    """A folder or file that cannot be used as asked; the message says what to do."""


class SweepInterruptedError(RuntimeError):
    """A sweep that was ended from outside before it had done its trials."""


class WorkerError(RuntimeError):
    """A worker came to no result that can be done without."""
