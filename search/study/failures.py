"""Why a trial failed: the kinds of failure, and which of them would happen again."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from generalist_core.training.trainer import DivergedError
from generalist_core.validation import require_one_of
from search.errors import SweepFolderError

Kind = Literal[
    "diverged", "out-of-memory", "error", "hang", "time-limit", "invalid", "worker-died", "orphan"
]

LASTING = ("diverged", "out-of-memory", "error", "hang", "time-limit", "invalid")
"""Kinds that would happen again with the same configuration: the sampler sees accuracies of 0."""

STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)
"""Errors of a full, read-only or broken disk, or of a file where a folder was, or the reverse."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The kind of a failure, and the reason in words."""

    kind: Kind
    reason: str

    def __post_init__(self) -> None:
        require_one_of("kind", self.kind, get_args(Kind))

    @property
    def is_lasting(self) -> bool:
        """Whether the same configuration would fail again."""
        return self.kind in LASTING

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, the arguments of `Failure`."""
        return asdict(self)


def classify(error: Exception) -> Failure:
    """The failure that an exception in a trial amounts to."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        return Failure(kind="diverged", reason=reason)
    if is_out_of_memory(error):
        return Failure(kind="out-of-memory", reason=reason.splitlines()[0])
    return Failure(kind="error", reason=reason)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on a CPU, torch raises a RuntimeError that only says so."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    phrases = ("not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def is_of_storage(error: Exception) -> bool:
    """Whether a folder is full or not writable, which is no failure of the trial."""
    return isinstance(error, OSError) and error.errno in STORAGE_ERRORS


def is_of_folder(error: Exception) -> bool:
    """Whether a folder cannot be written or is damaged, which is no failure of its training."""
    return is_of_storage(error) or isinstance(error, SweepFolderError)
