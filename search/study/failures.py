"""Why a trial came to nothing: kinds that are counted, and those that would come again."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch

from generalist_core.training.trainer import DivergedError
from generalist_core.validation import require_one_of

Kind = Literal[
    "diverged", "out-of-memory", "error", "hang", "time-limit", "invalid", "worker-died", "orphan"
]

LASTING = ("diverged", "out-of-memory", "error", "hang", "time-limit", "invalid")
"""Kinds that the same configuration meets again: the sampler is shown them, at accuracies of 0."""

FAILURE = "failure.json"
"""Where the folder of a failed trial says why."""

STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What kind of failure, and the reason in words."""

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
    """The failure that an exception in a trial is."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        return Failure(kind="diverged", reason=reason)
    if is_out_of_memory(error):
        return Failure(kind="out-of-memory", reason=reason.splitlines()[0])
    return Failure(kind="error", reason=reason)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on a CPU torch says so in words only."""
    in_words = isinstance(error, RuntimeError) and "not enough memory" in str(error)
    in_words |= isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return in_words or isinstance(error, MemoryError | torch.OutOfMemoryError)


def is_of_storage(error: Exception) -> bool:
    """Whether a folder is full or may not be written: no fault of the trial's."""
    return isinstance(error, OSError) and error.errno in STORAGE_ERRORS
