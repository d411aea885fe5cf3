"""The records that go into the ledger and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from generalist_core.config import Ratio, TrainConfig
from search.study.failures import Failure


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run: its id, its configuration, and the release ratio that was suggested.

    `member` is the one of a population that it is a step of.
    """

    trial: str
    config: TrainConfig
    mixing_ratio: Ratio
    params: Mapping[str, Any]
    member: int | None = None


State = Literal["completed", "stopped early", "failed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial in the study: how it was proposed, its state, and what it cost.

    `asked_after` trials had ended when it was asked. `is_given` says that its parameters, or some
    of them, were given and not suggested by the sampler. `config` is None if the space made none;
    `stopped_at` is the epoch after which the trial was stopped early. `member` is as in `Proposal`.
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
    member: int | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The parameters and release ratio of a training made elsewhere, and its accuracies.

    `origin` names the source in messages.
    """

    params: Mapping[str, Any]
    accuracies: Mapping[str, float]
    origin: str


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How many trials ended in which way; unfinished ones are running or wait for `resume`."""

    completed: int
    stopped_early: int
    failed: int
    unfinished: int

    @property
    def total(self) -> int:
        """The number of trials that ended."""
        return self.completed + self.stopped_early + self.failed


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The total cost of the trials, and the hypervolume of the front, when one of them ended.

    `elapsed_s` is the time since the first trial began, including pauses before a `resume`.
    """

    trial: str
    forward_images: float
    hypervolume: float
    elapsed_s: float


class RejectedError(RuntimeError):
    """A suggestion that is not trained: the space refuses it, or it was tried before."""

    def __init__(self, trial: str, reason: str) -> None:
        super().__init__(reason)
        self.trial = trial


class ExhaustedError(RuntimeError):
    """There is nothing to suggest: all that could be trained was tried before."""
