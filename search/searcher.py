"""Ray Tune's view of the search: proposals out, results in. Ray's own OptunaSearch cannot do this.

With several objectives OptunaSearch leaves failed trials running for ever and completes stopped
ones; here each trial that Ray ends is told to the ledger in its one final state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from generalist_core.codec import to_json
from generalist_core.config import TrainConfig
from search.ledger import Ledger
from search.monitor import Monitor
from search.trial import points_from_dicts, with_release_ratio
from spaces import Space


class StudySearcher(Searcher):
    """Asks the ledger for trials, `n_trials` in all and at most `n_workers` at a time."""

    def __init__(
        self,
        ledger: Ledger,
        monitor: Monitor,
        *,
        space: Space,
        base: TrainConfig,
        folder: Path,
        n_trials: int,
        n_workers: int,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.monitor = monitor
        self.space = space
        self.base = base
        self.folder = folder
        self.n_left = n_trials
        self.n_workers = n_workers
        self.running: dict[str, str] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Say that this searcher limits itself."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, None for not now, FINISHED for no more."""
        if self.n_left == 0:
            return Searcher.FINISHED
        if len(self.running) >= self.n_workers:
            return None
        self.n_left -= 1
        proposal = self.ledger.ask(self.space, self.base)
        self.running[trial_id] = proposal.trial
        config = with_release_ratio(proposal.config, proposal.ratio)
        return {
            "trial": proposal.trial,
            "folder": str(self.folder / proposal.trial),
            "config": to_json(config),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a running trial's metrics to the monitor."""
        self.monitor.on_metrics(self.running[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the ledger how a trial ended."""
        trial = self.running.pop(trial_id)
        if error or result is None or "points" not in result:
            reason = self._reason(trial) if error else "interrupted"
            self.ledger.tell_failed(trial, reason)
            self.monitor.on_failed(trial, reason, self.ledger)
            return
        self.monitor.on_metrics(trial, result)
        cost = {
            "forward_images": result["forward_images"],
            "seconds": result["train_seconds"],
        }
        points = points_from_dicts(result["points"])
        self.ledger.tell_released(trial, points, cost)
        self.monitor.on_completed(trial, points, self.ledger)

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
