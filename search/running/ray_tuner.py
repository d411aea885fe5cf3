"""Ray Tune drives the search, without Ray's own OptunaSearch and schedulers.

With several objectives OptunaSearch leaves failed trials in the state RUNNING and completes stopped
ones, and the schedulers know only one objective. Here each trial that Ray ends is recorded once, in
its final state.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as RaySearcher

from generalist_core.config.codec import to_json
from search.running.ray_cluster import n_at_once
from search.running.ray_trainable import GeneralistTrainable
from search.running.trial import with_release_ratio
from search.running.worker import has_metrics, report_end
from search.scheduling.searcher import Searcher
from search.study.failures import Failure
from search.study.folder import Sweep


class TuneSearcher(RaySearcher):
    """A search as Ray sees it: takes Ray's ids and results, and returns configurations.

    The search is not called `searcher`, because Ray takes an object with such an attribute for a
    wrapper around another of its searchers.
    """

    def __init__(
        self, searcher: Searcher, folder: Path, n_workers: Callable[[], int] | None = None
    ) -> None:
        """Wrap a search; `n_workers` says how many trials fit now, as machines come and go."""
        super().__init__()
        self.search = searcher
        self.folder = folder
        self.n_workers = n_workers
        self.names: dict[str, str] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Say that this searcher limits itself."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial; None for not now, FINISHED for no more."""
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
        """Pass on the metrics of an epoch; returns whether to stop the trial."""
        stops = False
        if has_metrics(result) and not self._is_unwritable:
            with self.search.aborting():
                stops = self.search.report(self.names[trial_id], result)
        return stops

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the stopper sees every result, also those that end a trial."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report how a trial ended, unless it was stopped or will be resumed."""
        trial = self.names.pop(trial_id)
        if trial not in self.search.running or self._is_unwritable:
            return
        with self.search.aborting():
            if error:
                reason = "its worker died, and so did those that replaced it"
                self.search.failed(trial, Failure(kind="worker-died", reason=reason))
            else:
                report_end(self.search, trial, result or {})

    @property
    def _is_unwritable(self) -> bool:
        """Whether a write has failed: no record may follow one that may be incomplete."""
        return isinstance(self.search.error, OSError)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is the source of truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study is the source of truth."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its searcher beside the results, and nothing of it is needed."""
        return {}


class RungStopper(tune.Stopper):
    """Shows every result to the searcher, which decides whether to stop the trial."""

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return self.searcher.report(trial_id, result)

    def stop_all(self) -> bool:
        """Whether an error has ended the search; otherwise it ends by proposing no more trials."""
        return self.searcher.search.error is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}


def run_on_ray(searcher: Searcher, sweep: Sweep) -> None:
    """Run all trials of a search on the running Ray, in the folder of the sweep.

    What Ray keeps there is never read again: the study and the trials' folders hold everything.
    """
    config, files, resources = sweep.config, sweep.files, sweep.config.resources
    tuned = TuneSearcher(searcher, files.trials, partial(n_at_once, resources))
    trainable = tune.with_parameters(
        GeneralistTrainable,
        threads=resources.threads,
        data=sweep.custom.data,
        model=sweep.custom.model,
        warmups=config.store_in(sweep.folder),
        limits=config.limits,
    )
    shutil.rmtree(files.ray, ignore_errors=True)
    asked = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, asked),
        tune_config=tune.TuneConfig(
            search_alg=tuned,
            num_samples=-1 if math.isinf(searcher.n_to_begin) else int(searcher.n_to_begin),
            reuse_actors=True,
            time_budget_s=config.time_budget_s,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name=files.ray.name,
            storage_path=str(sweep.folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=config.limits.max_retries),
            stop=RungStopper(tuned),
            verbose=0,
        ),
    ).fit()


def _trial_folder(trial: Any) -> str:
    return str(trial.config["trial"])
