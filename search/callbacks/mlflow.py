"""A sweep in MLflow: one run per trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.training.evaluator import OperatingPoint
from search.callbacks.adapters import key_of, library, numbers_of, outcome_of
from search.front.points import point_to_dict
from search.running.trial import latest_epoch
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results


class MLflowCallback(Callback):
    """Writes each trial to a run of an experiment: parameters, metrics by epoch, and its points.

    A trial that continues after a `resume` continues its run. The run of a trial that failed is
    `FAILED`, that of one that was stopped early is `FINISHED` with the tag `stopped_at`, and that
    of one that waits for a `resume` is `KILLED`.
    """

    def __init__(self, experiment: str, tracking_uri: str | None = None) -> None:
        """Use an experiment by its name, or begin it.

        `tracking_uri` is that of a server, a database or a folder; by default MLflow's own.

        Raises:
            InvalidConfigError: MLflow is not installed.
        """
        mlflow = library("mlflow")
        self._entities = mlflow.entities
        self.client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        known = self.client.get_experiment_by_name(experiment)
        self.experiment = (
            known.experiment_id if known else self.client.create_experiment(experiment)
        )
        self.runs: dict[str, str] = {}

    def on_begun(self, proposal: Proposal) -> None:
        """Begin the run of a trial, or continue it."""
        key = key_of(proposal)
        filters = f"tags.key = '{key}'"
        found = self.client.search_runs([self.experiment], filter_string=filters, max_results=1)
        if found:
            run = found[0].info.run_id
            self.client.set_terminated(run, "RUNNING")
        else:
            tags = {"key": key}
            run = self.client.create_run(
                self.experiment, run_name=proposal.trial, tags=tags
            ).info.run_id
        self.runs[proposal.trial] = run
        params = [self._entities.Param(k, str(v)) for k, v in proposal.params.items()]
        self.client.log_batch(run, params=params)

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch; the step is the epoch."""
        self._log(trial, numbers_of(metrics), latest_epoch(metrics))

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Write the best accuracies, and the points as `points.json`."""
        self._log(trial, outcome_of(points, results), points[0].epoch)
        self.client.log_dict(
            self.runs[trial], {"points": [point_to_dict(p) for p in points]}, "points.json"
        )
        self._end(trial, "FINISHED")

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Write the kind of failure; a trial that was rejected before it began has no run."""
        if trial in self.runs:
            self.client.set_tag(self.runs[trial], "failure", failure.kind)
            self._end(trial, "FAILED")

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Write the epoch."""
        self.client.set_tag(self.runs[trial], "stopped_at", epoch)
        self._end(trial, "FINISHED")

    def close(self) -> None:
        """End the runs of trials that wait for a `resume`."""
        for trial in list(self.runs):
            self._end(trial, "KILLED")

    def _log(self, trial: str, numbers: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.runs[trial], metrics=metrics)

    def _end(self, trial: str, status: str) -> None:
        self.client.set_terminated(self.runs.pop(trial), status)
