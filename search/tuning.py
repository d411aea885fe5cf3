"""Ray Tune drives the search. Ray's own OptunaSearch and schedulers cannot do this.

With several objectives OptunaSearch leaves failed trials running for ever and completes stopped
ones, and the schedulers know one objective. Here each trial that Ray ends is told in its one final
state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as RaySearcher

from generalist_core.codec import to_json
from generalist_core.data import Dataset
from generalist_core.models import ModelFactory
from search.cluster import Resources
from search.searcher import Searcher
from search.trainable import GeneralistTrainable
from search.trial import points_from_dicts, with_release_ratio
from search.warmups import WarmupConfig


class TuneSearcher(RaySearcher):
    """Ray's view of a search: Ray's ids and results in, configurations out.

    What has an attribute `searcher` is to Ray a wrapper around another of Ray's searchers.
    """

    def __init__(self, searcher: Searcher, folder: Path) -> None:
        super().__init__()
        self.search = searcher
        self.folder = folder
        self.names: dict[str, str] = {}

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002
        """Say that this searcher limits itself."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, None for not now, FINISHED for no more."""
        if self.search.n_left > 0 and self.search.is_full:
            return None
        proposal = self.search.propose()
        if proposal is None:
            return RaySearcher.FINISHED
        self.names[trial_id] = proposal.trial
        config = with_release_ratio(proposal.config, proposal.ratio)
        return {
            "trial": proposal.trial,
            "folder": str(self.folder / proposal.trial),
            "config": to_json(config),
        }

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Pass on an epoch's metrics; whether to stop the trial."""
        return self.search.report(self.names[trial_id], result)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the stopper has seen it, and sees those that end a trial too."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended, unless it was stopped."""
        trial = self.names.pop(trial_id)
        if trial not in self.search.running:
            return
        if error:
            self.search.failed(trial, self._reason(trial))
        elif result is not None and "points" in result:
            self.search.released(trial, points_from_dicts(result["points"]), result)
        else:
            self.search.failed(trial, "interrupted")

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


class RungStopper(tune.Stopper):
    """Shows every result to the searcher, which says whether to stop."""

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return self.searcher.report(trial_id, result)

    def stop_all(self) -> bool:
        """No: a search ends by proposing no more."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """As the searcher's."""
        return {}


def run_on_ray(
    searcher: Searcher,
    folder: Path,
    resources: Resources,
    *,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    warmups: WarmupConfig | None = None,
    time_budget_s: float | None = None,
) -> None:
    """Run all trials of a search on the Ray that runs; in `folder` each has its own in `trials`."""
    tuned = TuneSearcher(searcher, folder / "trials")
    trainable = tune.with_parameters(
        GeneralistTrainable, threads=resources.threads, data=data, model=model, warmups=warmups
    )
    asked = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(trainable, asked),
        tune_config=tune.TuneConfig(
            search_alg=tuned,
            num_samples=searcher.n_left,
            reuse_actors=True,
            time_budget_s=time_budget_s,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            stop=RungStopper(tuned),
            verbose=0,
        ),
    ).fit()


def _trial_folder(trial: Any) -> str:
    return str(trial.config["trial"])
