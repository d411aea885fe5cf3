"""The search itself, whoever runs its trials: what comes next, what stops, what came of it.

Ray drives it in `search.tuning`, a loop in `search.local`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.evaluation import OperatingPoint
from search.early_stopping import Rungs, epoch_of, results
from search.ledger import Proposal, RejectedError
from search.monitor import Watcher
from search.proposer import Proposer
from search.stopping_when_done import StopWhenDone, is_done


class Searcher:
    """Proposes `n_trials` in all and at most `n_workers` at a time, and tells the ledger of each.

    `rungs` stop weak trials, `stop_when` the whole search.
    """

    def __init__(
        self,
        proposer: Proposer,
        *,
        n_trials: int,
        n_workers: int = 1,
        watcher: Watcher | None = None,
        stop_when: StopWhenDone | None = None,
        rungs: Rungs | None = None,
        gpus_per_trial: float = 0.0,
    ) -> None:
        self.proposer = proposer
        self.ledger = proposer.ledger
        self.n_left = n_trials
        self.n_workers = n_workers
        self.watcher = watcher or Watcher()
        self.stop_when = stop_when
        self.rungs = rungs
        self.gpus_per_trial = gpus_per_trial
        self.running: dict[str, Proposal] = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.history: list[tuple[float, float]] = []

    @property
    def is_full(self) -> bool:
        """Whether all workers have a trial."""
        return len(self.running) >= self.n_workers

    def propose(self) -> Proposal | None:
        """The next trial, None if there are no more.

        One that the space itself refuses is told as failed, and counts.
        """
        while self.n_left > 0:
            self.n_left -= 1
            try:
                proposal = self.proposer.propose()
            except RejectedError as error:
                self.watcher.on_failed(error.trial, str(error), self.ledger)
                continue
            self.running[proposal.trial] = proposal
            return proposal
        return None

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Take in an epoch of a running trial; whether it is to be stopped, and is told so."""
        self.watcher.on_metrics(trial, metrics)
        self._count(trial, metrics)
        if self.rungs is None:
            return False
        reached = results(metrics, self.running[trial].config, self.rungs.halving)
        for rung, accuracies in reached.items():
            if self.rungs.report(trial, rung, [accuracies]).stop:
                learner = rung.split("@")[0]
                self._stop(trial, epoch_of(learner, metrics), accuracies)
                return True
        return False

    def released(
        self, trial: str, points: Sequence[OperatingPoint], cost: Mapping[str, float]
    ) -> None:
        """A trial has trained to its end and released these points, at this `cost` in all."""
        self._count(trial, cost)
        self.running.pop(trial)
        self.ledger.tell_released(trial, points, self.costs[trial])
        self.proposer.completed(trial)
        self.watcher.on_completed(trial, points, self.ledger)
        self._stop_if_done()

    def failed(self, trial: str, reason: str) -> None:
        """A trial came to nothing."""
        self.running.pop(trial)
        self.ledger.tell_failed(trial, reason, self.costs.get(trial))
        self.watcher.on_failed(trial, reason, self.ledger)
        self._stop_if_done()

    def close(self) -> bool:
        """End the search, and what still runs; whether it was cut short."""
        cut_short = bool(self.running) or self.n_left > 0
        for trial in list(self.running):
            self.failed(trial, "interrupted")
        self.ledger.close_unfinished("interrupted")
        self.watcher.close()
        return cut_short

    def _stop(self, trial: str, epoch: int, accuracies: Sequence[float]) -> None:
        self.running.pop(trial)
        named = dict(zip(self.ledger.objectives, accuracies, strict=True))
        self.ledger.tell_stopped(trial, epoch, self.costs[trial], named)
        self.watcher.on_stopped(trial, epoch, self.ledger)
        self._stop_if_done()

    def _count(self, trial: str, metrics: Mapping[str, float]) -> None:
        """What a trial has cost by now: its epochs' seconds add up, until a total is given."""
        so_far = self.costs.get(trial, {}).get("seconds", 0.0)
        seconds = metrics.get("total_seconds", so_far + metrics.get("seconds", 0.0))
        self.costs[trial] = {
            "forward_images": metrics["forward_images"],
            "reused_forward_images": metrics["reused_forward_images"],
            "seconds": seconds,
            "gpu_seconds": seconds * self.gpus_per_trial,
        }

    def _stop_if_done(self) -> None:
        """Ask for no more trials once the hypervolume has stopped growing."""
        if self.stop_when is None:
            return
        cost, worth = self.ledger.cost()["forward_images"], self.ledger.front().hypervolume
        self.history.append((cost, worth))
        if is_done(self.history, self.stop_when):
            self.n_left = 0
