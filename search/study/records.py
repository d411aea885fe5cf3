"""What goes in and out of the ledger: proposals, observations, floors and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from generalist_core.config import Ratio, TrainConfig
from search.study.failures import Failure


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run: its id, configuration, and the release ratio the sampler asked for."""

    trial: str
    config: TrainConfig
    mixing_ratio: Ratio
    params: Mapping[str, Any]


State = Literal["completed", "stopped early", "failed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial as the study has it: how it was proposed, how it ended or stands, what it cost.

    `asked_after` is how many trials had ended when it was asked. One that `is_given` was suggested
    by configuration, not by the sampler. The `config` is None if the space made none, `stopped_at`
    the epoch after which it was stopped early.
    """

    trial: str
    state: State
    is_given: bool
    asked_after: int
    params: Mapping[str, Any]
    config: Mapping[str, Any] | None
    cost: Mapping[str, float]
    stopped_at: int | None
    failure: Failure | None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Parameters of a space with its release ratio, the accuracies they gave, and who says so."""

    params: Mapping[str, Any]
    accuracies: Mapping[str, float]
    origin: str


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How many trials of a sweep ended in which way; the unfinished run, or wait for `resume`."""

    completed: int
    stopped_early: int
    failed: int
    unfinished: int

    @property
    def total(self) -> int:
        """All ended trials."""
        return self.completed + self.stopped_early + self.failed


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What the trials had cost together when one of them ended, and what the front was worth.

    `elapsed_s` is the time since the first trial began, pauses between a sweep and its `resume`
    included.
    """

    trial: str
    forward_images: float
    hypervolume: float
    elapsed_s: float


class RejectedError(RuntimeError):
    """A suggestion that is not worth training: the space refuses it, or it has failed before."""

    def __init__(self, trial: str, reason: str) -> None:
        super().__init__(reason)
        self.trial = trial
