"""Ray Tune drives the search, without Ray's own OptunaSearch and schedulers.

With several objectives OptunaSearch leaves failed trials in the state RUNNING and completes stopped
ones, and the schedulers know only one objective. Here each trial that Ray ends is recorded once, in
its final state.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as RaySearcher

from generalist_core.config.codec import to_json
from search.interruption import on_interruption
from search.running.ray_cluster import n_at_once
from search.running.ray_heartbeats import STOOD_STILL, Heartbeats
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
        self,
        searcher: Searcher,
        folder: Path,
        n_workers: Callable[[], int] | None = None,
        stood_still: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Wrap a search.

        Args:
            searcher: the search.
            folder: where the folders of the trials are.
            n_workers: says how many trials fit now, as machines come and go.
            stood_still: says whether the workers of a trial were ended because they stood still.
        """
        super().__init__()
        self.search = searcher
        self.folder = folder
        self.n_workers = n_workers
        self.stood_still = stood_still
        self.is_interrupted = False
        self.names: dict[str, str] = {}
        self.without_worker: set[str] = set()

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
                self.without_worker.add(trial_id)
                config = with_release_ratio(proposal.config, proposal.mixing_ratio)
                return {
                    "trial": proposal.trial,
                    "folder": str(self.folder / proposal.trial),
                    "config": to_json(config),
                }
        return None if self.search.n_to_begin > 0 or self.without_worker else RaySearcher.FINISHED

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Pass on the metrics of an epoch; returns whether to stop the trial."""
        stops = False
        if has_metrics(result) and not self.search.is_cut_off:
            with self.search.aborting():
                stops = self.search.report(self.names[trial_id], result)
        return stops

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the stopper sees every result, also those that end a trial."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report how a trial ended, unless it was stopped or will be resumed, or `died` does."""
        if not error and (trial := self._pop(trial_id)) is not None:
            with self.search.aborting():
                report_end(self.search, trial, result or {})

    def died(self, trial_id: str, cause: str) -> None:
        """Report a trial whose workers died, the last one of this cause."""
        if (trial := self._pop(trial_id)) is not None:
            reason = f"its worker died, and so did those that replaced it: {cause}"
            died = Failure(kind="worker-died", reason=reason)
            failure = STOOD_STILL if self.stood_still(trial) else died
            with self.search.aborting():
                self.search.failed(trial, failure)

    def begun(self, trial_id: str) -> None:
        """Take in that a worker has the trial."""
        self.without_worker.discard(trial_id)

    def lost(self, trial_id: str) -> None:
        """Propose the trial again: the worker that was to take it over has died."""
        if (trial := self._pop(trial_id)) is not None:
            self.search.put_back(trial)

    def _pop(self, trial_id: str) -> str | None:
        """The trial of a searcher's id, which Ray has ended, if its end is to be reported."""
        trial = self.names.pop(trial_id)
        self.without_worker.discard(trial_id)
        return None if trial not in self.search.running or self.search.is_cut_off else trial

    @property
    def is_ending(self) -> bool:
        """Whether no trial goes on: after an error or Ctrl-C."""
        return self.is_interrupted or self.search.error is not None

    def interrupt(self) -> None:
        """Let the search end in order; nothing can see that Ray's own handler was called."""
        self.is_interrupted = True

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
        """Whether an error, Ctrl-C or another process that runs the sweep has ended the search.

        Otherwise it ends by proposing no more trials.
        """
        with self.searcher.search.aborting():
            self.searcher.search.ledger.guard()
        return self.searcher.is_ending

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}


class DeathReporter(tune.Callback):
    """Tells the searcher why Ray gave a trial up; Ray itself tells a searcher only that it did.

    Ray 2.60 counts the death of a worker twice if it was about to switch to the next trial: it
    recovers the trial, and gives it up in the same step. Such a trial is proposed again.
    """

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher
        self.recovered_in: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Tell that a worker has the trial."""
        self.searcher.begun(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Note the step of Tune's loop in which the trial was to go on."""
        self.recovered_in[trial.trial_id] = iteration

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Report the last error that Ray has written about the trial, or that it goes on."""
        if self.recovered_in.get(trial.trial_id) == iteration:
            self.searcher.lost(trial.trial_id)
            return
        errors = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
        self.searcher.died(trial.trial_id, cause_of(errors))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the searcher."""
        return {}


def cause_of(errors: str) -> str:
    """The last line of Ray's errors, which names the exception or how the process ended."""
    return textwrap.shorten(errors.rstrip().rpartition("\n")[2], 300, placeholder=" ...")


def run_on_ray(searcher: Searcher, sweep: Sweep) -> None:
    """Run all trials of a search on the running Ray, in the folder of the sweep.

    What Ray keeps there is never read again: the study and the trials' folders hold everything.
    """
    config, files, resources = sweep.config, sweep.files, sweep.config.resources
    heartbeats = Heartbeats(config.limits, lambda: tuned.is_ending)
    tuned = TuneSearcher(searcher, files.trials, partial(n_at_once, resources), heartbeats.has_hung)
    trainable = tune.with_parameters(
        GeneralistTrainable,
        threads=resources.threads,
        gpu_fraction=resources.gpus_per_trial,
        data=sweep.custom.data,
        model=sweep.custom.model,
        warmups=config.store_in(sweep.folder),
        limits=config.limits,
    )
    shutil.rmtree(files.ray, ignore_errors=True)
    asked = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tuner = tune.Tuner(
        tune.with_resources(trainable, asked),
        tune_config=tune.TuneConfig(
            search_alg=tuned,
            num_samples=-1,  # the searcher says when it is over
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
            callbacks=[heartbeats, DeathReporter(tuned)],
            verbose=0,
        ),
    )
    with on_interruption(tuned.interrupt):
        tuner.fit()


def _trial_folder(trial: Any) -> str:
    return str(trial.config["trial"])
