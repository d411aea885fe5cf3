"""The search: it proposes trials, stops them, and tells the ledger how they ended.

It does not run trials. Ray drives it in `search.running.ray_tuner`, a plain loop in
`search.running.local`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.training.evaluator import OperatingPoint
from search.config import StopWhenDone
from search.errors import SweepInterruptedError, WorkerError
from search.front.points import trial_id
from search.scheduling.callbacks import Callback
from search.scheduling.early_stopping import Rungs, epoch_of, rung_results
from search.scheduling.proposer import Proposer
from search.scheduling.stopping import is_done
from search.study.failures import Failure
from search.study.records import ExhaustedError, Proposal, RejectedError
from search.study.storage import WRITE_ERRORS
from search.wording import plural

GLOBAL = "global@"
"""The beginning of the names of the global learner's rungs."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What ends trials and the search, and when trials begin.

    `rungs` stop weak trials. `stop_when` and `max_failures` failed trials end the whole search. No
    trial begins once the others have cost `budget` forward images.

    `round_size` makes the result independent of the speed of trials: that many form a round, and a
    round begins when all trials of the last one have ended. The ends are told in the order of
    the trials, and a rung compares only with earlier rounds. Warm-ups then have no rungs, because
    the first of the trials that share a warm-up trains it and reports.
    """

    rungs: Rungs | None = None
    stop_when: StopWhenDone | None = None
    max_failures: int | None = None
    budget: float = math.inf
    round_size: int | None = None


class Searcher:
    """Proposes trials, at most `n_workers` at a time, and tells the ledger how each ended."""

    def __init__(
        self,
        proposer: Proposer,
        *,
        n_trials: float,
        unfinished: Sequence[Proposal] = (),
        n_workers: int = 1,
        rules: Rules | None = None,
        callback: Callback | None = None,
        gpus_per_trial: float = 0.0,
    ) -> None:
        """Begin a search of `n_trials`, or continue one, beginning with its `unfinished` trials.

        Infinitely many trials end by the budget.
        """
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
        self.is_waiting = False
        self.exhausted = ""

    @property
    def is_full(self) -> bool:
        """Whether no trial can begin now: all workers are busy, or the round must end first."""
        return len(self.running) >= self.n_workers or self._awaits_end_of_round

    @property
    def _awaits_end_of_round(self) -> bool:
        if self.rules.round_size is None or self.unfinished:
            return False
        under_way = bool(self.running or self.ended)
        return under_way and self.ledger.results.n_asked % self.rules.round_size == 0

    @property
    def is_cut_off(self) -> bool:
        """Whether this process must record no more: a write has failed, or another process runs."""
        return isinstance(self.error, OSError | SweepInterruptedError)

    @property
    def n_to_begin(self) -> float:
        """The number of trials that are still to begin; infinity if only the budget ends them."""
        if self.error is not None:
            return 0
        return len(self.unfinished) + (0 if self._is_spent else self.n_left)

    @property
    def _is_spent(self) -> bool:
        """Whether the trials have cost the budget; in rounds, those that have ended."""
        if math.isinf(self.rules.budget):
            return False
        running = self.running if self.rules.round_size is None else ()
        costs = (self.costs.get(trial, {}).get("forward_images", 0.0) for trial in running)
        return self.ledger.results.cost()["forward_images"] + sum(costs) >= self.rules.budget

    def propose(self) -> Proposal | None:
        """The next trial; None if there is none now, or none at all if `n_to_begin` is 0.

        A suggestion that is rejected before training is told as a failed trial, and counts. If
        nothing is left to suggest, the search ends; not before all running trials have ended, which
        may fail and be tried again, or let a lineage grow. `exhausted` then says what was tried.
        """
        while self.n_to_begin > 0 and not (self._awaits_end_of_round or self.is_waiting):
            try:
                proposal = self._next()
            except ExhaustedError as error:
                self._take_exhausted(str(error))
                continue
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

    def _take_exhausted(self, reason: str) -> None:
        """Wait for the running trials; if there are none, end the round early, or the search."""
        self.n_left += 1
        if self.running:
            self.is_waiting = True
        elif self.ended:
            self._tell_what_is_due(is_whole=True)
        else:
            self.n_left, self.exhausted = 0, reason

    def recall(self, proposal: Proposal, metrics: Mapping[str, Any]) -> None:
        """Take in an epoch that was reported before the search was interrupted.

        In rounds, the ledger may not have been told yet that the trial was stopped; without them
        it was told at once.
        """
        self._count(proposal.trial, metrics)
        stops = self._decide(proposal.trial, proposal.config, metrics)
        untold = next((p for p in self.unfinished if p.trial == proposal.trial), None)
        if stops is not None and self.rules.round_size is not None and untold is not None:
            self.unfinished.remove(untold)
            self._end(proposal.trial, stops)

    def report(self, trial: str, metrics: Mapping[str, Any]) -> bool:
        """Take in an epoch of a running trial; returns whether the trial is to be stopped."""
        self.ledger.guard()
        self.callback.on_metrics(trial, metrics)
        self._count(trial, metrics)
        stops = self._decide(trial, self.running[trial].config, metrics)
        if stops is not None:
            self._end(trial, stops)
        return stops is not None

    def _decide(
        self, trial: str, config: TrainConfig, metrics: Mapping[str, Any]
    ) -> Callable[[], None] | None:
        """The call that tells the ledger that a rung stops the trial; None if no rung does."""
        if self.rules.rungs is None:
            return None
        unseen, in_rounds = self._round_of(trial), self.rules.round_size is not None
        for rung, accuracies in rung_results(metrics, config, self.rules.rungs.halving).items():
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
        """Take in that a trial was trained to its end and released points, at this total `cost`.

        `trained` is its configuration if that is not the one proposed.
        """
        self._count(trial, cost)
        self._end(trial, partial(self._tell_released, trial, points, trained))

    def failed(self, trial: str, failure: Failure, cost: Mapping[str, float] | None = None) -> None:
        """Take in that a trial failed."""
        if cost is not None:
            self._count(trial, cost)
        self._end(trial, partial(self._tell_failed, trial, failure))

    def put_back(self, trial: str) -> None:
        """Take in that a trial that was proposed could not begin: it is proposed again."""
        self.unfinished.insert(0, self.running.pop(trial))
        self.is_waiting = False

    def abort(self, error: Exception) -> None:
        """End the search because of an error outside its trials; running ones wait for `resume`."""
        self.error = self.error or error

    @contextmanager
    def aborting(self) -> Iterator[None]:
        """Let an error in the block end the search, and not the loop that drives it."""
        try:
            yield
        except WRITE_ERRORS as error:
            self.abort(error if isinstance(error, OSError) else OSError(str(error)))
        except Exception as error:
            self.abort(error)

    def close(self) -> bool:
        """End the search; returns whether it was cut short, with trials left for `resume`."""
        cut_short = bool(self.running or self.ended) or self.n_to_begin > 0
        try:
            if not self.is_cut_off:
                for trial in (*self.running, *self.ended, *(p.trial for p in self.unfinished)):
                    self.ledger.pause(trial)
        finally:
            self.callback.close()
        return cut_short

    def _end(self, trial: str, tell: Callable[[], None]) -> None:
        """Tell that a trial ended: at once, or in rounds once its whole round has ended."""
        self.running.pop(trial, None)
        self.is_waiting = False
        self.ended[trial] = tell
        self._tell_what_is_due()

    def _tell_what_is_due(self, *, is_whole: bool = False) -> None:
        if self.rules.round_size is not None:
            is_whole |= self.ledger.results.n_asked % self.rules.round_size == 0
            if self.running or self.unfinished or not (is_whole or self.n_left == 0):
                return
        for name in sorted(self.ended):
            self.ended.pop(name)()
        self._stop_if_failing()
        self._stop_if_done()

    def _round_of(self, trial: str) -> set[str]:
        """The ids of the trials of the same round."""
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
        """Note the cost of a trial so far: seconds of epochs add up until a total is given."""
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
        """End the search after `max_failures` failed trials."""
        if self.rules.max_failures is None:
            return
        failures = self.ledger.results.failures()
        if len(failures) >= self.rules.max_failures:
            last = list(failures.values())[-1]
            self.abort(
                WorkerError(
                    f"{plural(len(failures), 'trial')} failed, as many as --max-failures allows. "
                    f"The last failure: {last.reason}"
                )
            )

    def _stop_if_done(self) -> None:
        """Propose no more trials once the hypervolume has stopped growing."""
        if self.rules.stop_when is None:
            return
        history = [
            (past.forward_images, past.hypervolume) for past in self.ledger.results.history()
        ]
        if is_done(history, self.rules.stop_when):
            self.n_left = 0
