"""Ray Tune's view of the search: proposals out, results in. Ray's own OptunaSearch cannot do this.

With several objectives OptunaSearch leaves failed trials running for ever and completes stopped
ones; here each trial that Ray ends is told to the ledger in its one final state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from generalist_core.codec import to_json
from generalist_core.config import TrainConfig
from search.early_stopping import Rungs
from search.files import write_json
from search.ledger import Proposal, RejectedError
from search.monitor import Monitor
from search.proposer import Proposer
from search.stopping_when_done import StopWhenDone, is_done
from search.trial import points_from_dicts, with_release_ratio

RUNGS = "rungs.json"


class RungStopper(tune.Stopper):
    """Asks the searcher after every result; Ray's schedulers know one objective only."""

    def __init__(self, searcher: StudySearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return self.searcher.should_stop(trial_id, result)

    def stop_all(self) -> bool:
        """Never: a sweep ends by asking for no more trials."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles what it is given; nothing of this is worth keeping."""
        return {}


class StudySearcher(Searcher):
    """Asks the proposer for trials, `n_trials` in all and at most `n_workers` at a time."""

    def __init__(
        self,
        proposer: Proposer,
        monitor: Monitor,
        *,
        folder: Path,
        n_trials: int,
        n_workers: int,
        stop_when: StopWhenDone | None = None,
        rungs: Rungs | None = None,
    ) -> None:
        super().__init__()
        self.proposer = proposer
        self.ledger = proposer.ledger
        self.monitor = monitor
        self.folder = folder
        self.n_left = n_trials
        self.n_workers = n_workers
        self.stop_when = stop_when
        self.rungs = rungs
        self.running: dict[str, Proposal] = {}
        self.stopped: set[str] = set()
        self.costs: dict[str, dict[str, float]] = {}
        self.history: list[tuple[float, float]] = []

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Say that this searcher limits itself."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, None for not now, FINISHED for no more."""
        if self.n_left == 0:
            return Searcher.FINISHED
        if len(self.running) >= self.n_workers:
            return None
        proposal = self._propose()
        if proposal is None:
            return Searcher.FINISHED
        self.running[trial_id] = proposal
        config = with_release_ratio(proposal.config, proposal.ratio)
        return {
            "trial": proposal.trial,
            "folder": str(self.folder / proposal.trial),
            "config": to_json(config),
        }

    def _propose(self) -> Proposal | None:
        """The next proposal; one that the space itself refuses is told as failed and counts."""
        while self.n_left > 0:
            self.n_left -= 1
            try:
                return self.proposer.propose()
            except RejectedError as error:
                self.monitor.on_failed(error.trial, str(error), self.ledger)
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a running trial's metrics to the monitor, and count what it has cost."""
        trial = self.running[trial_id].trial
        self.monitor.on_metrics(trial, result)
        so_far = self.costs.get(trial, {}).get("seconds", 0.0) + result["seconds"]
        seconds = result.get("total_seconds", so_far)
        counted = {name: result[name] for name in ("forward_images", "reused_forward_images")}
        self.costs[trial] = {**counted, "seconds": seconds}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the ledger how a trial ended."""
        if not error and result is not None and (result["done"] or trial_id in self.stopped):
            self.on_trial_result(trial_id, result)
        trial = self.running.pop(trial_id).trial
        if error or result is None:
            self._fail(trial, self._reason(trial) if error else "interrupted")
        elif trial_id in self.stopped:
            self.ledger.tell_stopped(trial, int(result["epoch"]), self.costs[trial])
            self.monitor.on_stopped(trial, int(result["epoch"]), self.ledger)
        elif "points" in result:
            points = points_from_dicts(result["points"])
            self.ledger.tell_released(trial, points, self.costs[trial])
            self.proposer.completed(trial)
            self.monitor.on_completed(trial, points, self.ledger)
        else:
            self._fail(trial, "interrupted")
        self._stop_if_done()

    def should_stop(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial that co-trains is among the weak of its rung; see `early_stopping`.

        A result that was evaluated counts: the averages of the experts and the global learner are
        three points of the curve to come, at no further cost.
        """
        proposal, epoch = self.running[trial_id], int(result["epoch"])
        due = self._due(proposal.config)
        if self.rungs is None or epoch not in due or result.get("done"):
            return False
        points = [
            [result[f"accuracy/{learner}/{name}"] for name in self.ledger.objectives]
            for learner in ("global", *(expert.name for expert in proposal.config.experts))
        ]
        decision = self.rungs.report(proposal.trial, due[epoch], points)
        write_json(self.folder.parent / RUNGS, self.rungs.to_dict())
        if decision.stop:
            self.stopped.add(trial_id)
        return decision.stop

    def _due(self, config: TrainConfig) -> dict[int, int]:
        """The evaluated epochs of co-training that report, each to its rung."""
        if self.rungs is None:
            return {}
        every = config.evaluation.every_epochs
        evaluated = [e for e in range(every, config.epochs, every) if e > config.sync.start_epoch]
        return self.rungs.halving.reports(evaluated, config.epochs)

    def close(self) -> bool:
        """Close what still runs when Ray has ended; whether the sweep was cut short."""
        cut_short = bool(self.running) or self.n_left > 0
        for proposal in self.running.values():
            self._fail(proposal.trial, "interrupted")
        self.running.clear()
        self.ledger.close_unfinished("interrupted")
        return cut_short

    def _fail(self, trial: str, reason: str) -> None:
        self.ledger.tell_failed(trial, reason, self.costs.get(trial))
        self.monitor.on_failed(trial, reason, self.ledger)

    def _stop_if_done(self) -> None:
        """Ask for no more trials once the hypervolume has stopped growing."""
        if self.stop_when is None:
            return
        cost, worth = self.ledger.cost()["forward_images"], self.ledger.front().hypervolume
        self.history.append((cost, worth))
        if is_done(self.history, self.stop_when):
            self.n_left = 0

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the source of truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the source of truth."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher beside the results; nothing of this one is worth keeping."""
        return {}

    def _reason(self, trial: str) -> str:
        failure = self.folder / trial / "failure.json"
        if not failure.is_file():
            return "the worker died"
        return str(json.loads(failure.read_text(encoding="utf-8"))["reason"])
