"""Ray Tune drives the search. Ray's own OptunaSearch and schedulers cannot do this.

With several objectives OptunaSearch leaves failed trials running for ever and completes stopped
ones, and the schedulers know one objective. Here each trial that Ray ends is told in its one final
state.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as RaySearcher

from generalist_core.config.codec import to_json
from search.config import CustomParts, SweepConfig
from search.running.ray_cluster import n_at_once
from search.running.ray_trainable import GeneralistTrainable
from search.running.trial import with_release_ratio
from search.running.worker import is_epoch, tell
from search.scheduling.searcher import Searcher
from search.study.failures import Failure

RAY = "ray"
"""Ray's own folder in that of a sweep."""


class TuneSearcher(RaySearcher):
    """Ray's view of a search: Ray's ids and results in, configurations out.

    What has an attribute `searcher` is to Ray a wrapper around another of Ray's searchers.
    """

    def __init__(
        self, searcher: Searcher, folder: Path, n_workers: Callable[[], int] | None = None
    ) -> None:
        """Take a search; `n_workers` says how many trials fit now, as machines come and go."""
        super().__init__()
        self.search = searcher
        self.folder = folder
        self.n_workers = n_workers
        self.names: dict[str, str] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Say that this searcher limits itself."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, None for not now, FINISHED for no more."""
        if self.n_workers is not None:
            self.search.n_workers = max(1, self.n_workers())
        with self.search.aborting():
            proposal = self.search.propose() if not self.search.is_full else None
            if proposal is not None:
                self.names[trial_id] = proposal.trial
                config = with_release_ratio(proposal.config, proposal.mixing_ratio)
                return {
                    "trial": proposal.trial,
                    "folder": str(self.folder / proposal.trial),
                    "config": to_json(config),
                }
        return None if self.search.n_to_begin > 0 else RaySearcher.FINISHED

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Pass on an epoch's metrics; whether to stop the trial."""
        stops = False
        if is_epoch(result) and not self._is_unwritable:
            with self.search.aborting():
                stops = self.search.report(self.names[trial_id], result)
        return stops

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the stopper has seen it, and sees those that end a trial too."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended, unless it was stopped, or is to go on another time."""
        trial = self.names.pop(trial_id)
        if trial not in self.search.running or self._is_unwritable:
            return
        with self.search.aborting():
            if error:
                reason = "its worker died, and so did those that took its place"
                self.search.failed(trial, Failure(kind="worker-died", reason=reason))
            else:
                tell(self.search, trial, result or {})

    @property
    def _is_unwritable(self) -> bool:
        """Whether a write has failed: half a record may be there, so that none may follow it."""
        return isinstance(self.search.error, OSError)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the source of truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the source of truth."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher beside the results; nothing of this one is worth keeping."""
        return {}


class RungStopper(tune.Stopper):
    """Shows every result to the searcher, which says whether to stop."""

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return self.searcher.report(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the search cannot go on; else it ends by proposing no more."""
        return self.searcher.search.error is not None

    def __getstate__(self) -> dict[str, Any]:
        """As the searcher's."""
        return {}


def run_on_ray(searcher: Searcher, folder: Path, config: SweepConfig, custom: CustomParts) -> None:
    """Run all trials of a search on the Ray that runs; in `folder` each has its own in `trials`.

    Nothing that Ray keeps is ever read again: the study and the trials' folders say it all.
    """
    resources = config.resources
    tuned = TuneSearcher(searcher, folder / "trials", partial(n_at_once, resources))
    trainable = tune.with_parameters(
        GeneralistTrainable,
        threads=resources.threads,
        data=custom.data,
        model=custom.model,
        warmups=config.store_in(folder),
        limits=config.limits,
    )
    shutil.rmtree(folder / RAY, ignore_errors=True)
    asked = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, asked),
        tune_config=tune.TuneConfig(
            search_alg=tuned,
            num_samples=searcher.n_to_begin,
            reuse_actors=True,
            time_budget_s=config.time_budget_s,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name=RAY,
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=config.limits.max_retries),
            stop=RungStopper(tuned),
            verbose=0,
        ),
    ).fit()


def _trial_folder(trial: Any) -> str:
    return str(trial.config["trial"])
