"""The search itself, whoever runs its trials: what comes next, what stops, what came of it.

Ray drives it in `search.running.ray_tuner`, a plain loop in `search.running.local`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.training.evaluator import OperatingPoint
from search.config import StopWhenDone
from search.errors import WorkerError
from search.front.points import trial_id
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs, epoch_of, results
from search.scheduling.proposer import Proposer
from search.scheduling.stopping import is_done
from search.study.failures import Failure
from search.study.records import Proposal, RejectedError
from search.study.storage import WRITE_ERRORS

GLOBAL = "global@"
"""How the rungs of the global learner are named."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What ends trials and the search, and when trials begin.

    `rungs` stop weak trials, `stop_when` the whole search, and so do `max_failures` failed trials.
    With a `round_size` so many trials make a round: none begins before all of the last round have
    ended, ends are told in the order of the trials, and rungs compare with earlier rounds only.
    Warm-ups then have no rungs: of those who share one, whoever is first trains and reports it.
    So what comes out does not depend on who was faster.
    """

    rungs: Rungs | None = None
    stop_when: StopWhenDone | None = None
    max_failures: int | None = None
    round_size: int | None = None


class Searcher:
    """Proposes trials, at most `n_workers` at a time, and tells the ledger of each."""

    def __init__(
        self,
        proposer: Proposer,
        *,
        n_trials: int,
        unfinished: Sequence[Proposal] = (),
        n_workers: int = 1,
        rules: Rules | None = None,
        callback: Callback | None = None,
        gpus_per_trial: float = 0.0,
    ) -> None:
        """Begin a search of `n_trials`, or go on with one: first with its `unfinished` trials."""
        self.proposer = proposer
        self.ledger = proposer.ledger
        self.n_left = max(0, n_trials - self.ledger.results.n_asked)
        self.unfinished = list(unfinished)
        self.n_workers = n_workers
        self.rules = rules or Rules()
        self.callback = callback or Callback()
        self.gpus_per_trial = gpus_per_trial
        self.running: dict[str, Proposal] = {}
        self.ended: dict[str, Callable[[], None]] = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.error: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether no trial can begin now: all workers have one, or the round is to end first."""
        return len(self.running) >= self.n_workers or self._awaits_end_of_round

    @property
    def _awaits_end_of_round(self) -> bool:
        if self.rules.round_size is None or self.unfinished:
            return False
        under_way = bool(self.running or self.ended)
        return under_way and self.ledger.results.n_asked % self.rules.round_size == 0

    @property
    def n_to_begin(self) -> int:
        """How many trials are still to begin."""
        return self.n_left + len(self.unfinished) if self.error is None else 0

    def propose(self) -> Proposal | None:
        """The next trial; None if there is none now, or with `n_to_begin` = 0 none any more.

        One that is rejected before it is trained is told as failed, and counts.
        """
        while self.n_to_begin > 0 and not self._awaits_end_of_round:
            try:
                proposal = self._next()
            except RejectedError as error:
                failure = Failure(kind="invalid", reason=str(error))
                self.callback.on_failed(error.trial, failure, self.ledger.results)
                self._tell_what_is_due()
                continue
            self.running[proposal.trial] = proposal
            self.callback.on_begun(proposal)
            return proposal
        return None

    def _next(self) -> Proposal:
        if self.unfinished:
            return self.unfinished.pop(0)
        self.n_left -= 1
        return self.proposer.propose()

    def recall(self, proposal: Proposal, metrics: Mapping[str, Any]) -> None:
        """Take in an epoch that was reported before this search went on.

        In rounds its decision may still be untold; else whoever was to be stopped was.
        """
        self._count(proposal.trial, metrics)
        stops = self._decide(proposal.trial, proposal.config, metrics)
        untold = next((p for p in self.unfinished if p.trial == proposal.trial), None)
        if stops is not None and self.rules.round_size is not None and untold is not None:
            self.unfinished.remove(untold)
            self._end(proposal.trial, stops)

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Take in an epoch of a running trial; whether it is to be stopped, and is told so."""
        self.callback.on_metrics(trial, metrics)
        self._count(trial, metrics)
        stops = self._decide(trial, self.running[trial].config, metrics)
        if stops is not None:
            self._end(trial, stops)
        return stops is not None

    def _decide(
        self, trial: str, config: TrainConfig, metrics: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        """What tells that a rung stops the trial, if one does."""
        if self.rules.rungs is None:
            return None
        unseen, in_rounds = self._round_of(trial), self.rules.round_size is not None
        for rung, accuracies in results(metrics, config, self.rules.rungs.halving).items():
            if in_rounds and not rung.startswith(GLOBAL):
                continue
            if self.rules.rungs.report(trial, rung, [accuracies], unseen=unseen).stop:
                epoch = epoch_of(rung.split("@")[0], metrics)
                return partial(self._tell_stopped, trial, epoch, accuracies)
        return None

    def released(
        self,
        trial: str,
        points: Sequence[OperatingPoint],
        cost: Mapping[str, float],
        *,
        trained: TrainConfig | None = None,
    ) -> None:
        """A trial has trained to its end and released these points, at this `cost` in all.

        `trained` is its configuration where that is not the one proposed.
        """
        self._count(trial, cost)
        self._end(trial, partial(self._tell_released, trial, points, trained))

    def failed(self, trial: str, failure: Failure, cost: Mapping[str, float] | None = None) -> None:
        """A trial came to nothing."""
        if cost is not None:
            self._count(trial, cost)
        self._end(trial, partial(self._tell_failed, trial, failure))

    def abort(self, error: Exception) -> None:
        """End the search because of an error that is no trial's; who runs is left for `resume`."""
        self.error = self.error or error

    @contextmanager
    def aborting(self) -> Iterator[None]:
        """Let an error inside end the search, and not whoever drives it."""
        try:
            yield
        except WRITE_ERRORS as error:
            self.abort(error if isinstance(error, OSError) else OSError(str(error)))
        except Exception as error:
            self.abort(error)

    def close(self) -> bool:
        """End the search, and leave what still runs for `resume`; whether there is any."""
        cut_short = bool(self.running or self.ended) or self.n_to_begin > 0
        if not isinstance(self.error, OSError):
            for trial in (*self.running, *self.ended, *(p.trial for p in self.unfinished)):
                self.ledger.pause(trial)
        self.callback.close()
        return cut_short

    def _end(self, trial: str, tell: Callable[[], None]) -> None:
        """Tell that a trial ended: at once, or in rounds when all of its round have."""
        self.running.pop(trial, None)
        self.ended[trial] = tell
        self._tell_what_is_due()

    def _tell_what_is_due(self) -> None:
        if self.rules.round_size is not None:
            whole = self.ledger.results.n_asked % self.rules.round_size == 0 or self.n_left == 0
            if self.running or self.unfinished or not whole:
                return
        for name in sorted(self.ended):
            self.ended.pop(name)()
        self._stop_if_failing()
        self._stop_if_done()

    def _round_of(self, trial: str) -> set[str]:
        """The trials of the same round."""
        if self.rules.round_size is None:
            return set()
        first = int(trial) // self.rules.round_size * self.rules.round_size
        return {trial_id(number) for number in range(first, first + self.rules.round_size)}

    def _tell_released(
        self, trial: str, points: Sequence[OperatingPoint], trained: TrainConfig | None
    ) -> None:
        self.ledger.tell_released(trial, points, self.costs[trial], trained=trained)
        self.proposer.completed(trial)
        self.callback.on_completed(trial, points, self.ledger.results)

    def _tell_failed(self, trial: str, failure: Failure) -> None:
        self.ledger.tell_failed(trial, failure, self.costs.get(trial))
        self.callback.on_failed(trial, failure, self.ledger.results)

    def _tell_stopped(self, trial: str, epoch: int, accuracies: Sequence[float]) -> None:
        named = dict(zip(self.ledger.results.objectives, accuracies, strict=True))
        self.ledger.tell_stopped(trial, epoch, self.costs[trial], named)
        self.callback.on_stopped(trial, epoch, self.ledger.results)

    def _count(self, trial: str, metrics: Mapping[str, float]) -> None:
        """What a trial has cost by now: its epochs' seconds add up, until a total is given."""
        so_far = self.costs.get(trial, {}).get("seconds", 0.0)
        seconds = metrics.get("total_seconds", so_far + metrics.get("seconds", 0.0))
        self.costs[trial] = {
            "forward_images": metrics["forward_images"],
            "reused_forward_images": metrics["reused_forward_images"],
            "lost_forward_images": metrics.get("lost_forward_images", 0.0),
            "seconds": seconds,
            "gpu_seconds": seconds * self.gpus_per_trial,
        }

    def _stop_if_failing(self) -> None:
        """End the search after so many failed trials."""
        if self.rules.max_failures is None:
            return
        failures = self.ledger.results.failures()
        if len(failures) >= self.rules.max_failures:
            last = list(failures.values())[-1]
            self.abort(
                WorkerError(
                    f"{len(failures)} trials failed, as many as --max-failures allows; "
                    f"the last of them: {last.reason}"
                )
            )

    def _stop_if_done(self) -> None:
        """Ask for no more trials once the hypervolume has stopped growing."""
        if self.rules.stop_when is None:
            return
        history = [
            (past.forward_images, past.hypervolume) for past in self.ledger.results.history()
        ]
        if is_done(history, self.rules.stop_when):
            self.n_left = 0
