"""A sweep in Weights & Biases: one run per trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.training.evaluator import OperatingPoint
from search.callbacks.adapters import key_of, library, numbers_of, outcome_of
from search.running.trial import latest_epoch
from search.scheduling.callbacks import Callback
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results


class WandbCallback(Callback):
    """Writes each trial to a run: parameters, metrics by epoch, and its best accuracies.

    A trial that continues after a `resume` continues its run.
    """

    def __init__(self, project: str, group: str, **settings: Any) -> None:
        """Begin without runs; they are the `group` of a project.

        `settings` are further arguments of `wandb.init`, such as `mode="offline"` and `dir`.

        Raises:
            InvalidConfigError: wandb is not installed.
        """
        self._init = library("wandb").init
        # wandb would read the streams of the process, which the sweep redirects itself
        quiet = {"settings": {"console": "off"}}
        self.settings = {"project": project, "group": group, **quiet, **settings}
        self.runs: dict[str, Any] = {}

    def on_begun(self, proposal: Proposal) -> None:
        """Begin the run of a trial, or continue it."""
        self.runs[proposal.trial] = self._init(
            id=key_of(proposal),
            name=proposal.trial,
            config=dict(proposal.params),
            resume="allow",
            reinit="create_new",
            **self.settings,
        )

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch, and the epoch, as experts may train one after another."""
        self.runs[trial].log({**numbers_of(metrics), "epoch": latest_epoch(metrics)})

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Write the best accuracies."""
        self._end(trial, {"state": "completed", **outcome_of(points, results)})

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:  # noqa: ARG002
        """Write the kind of failure; a trial that was rejected before it began has no run."""
        if trial in self.runs:
            self._end(trial, {"state": "failed", "failure": failure.kind}, exit_code=1)

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:  # noqa: ARG002
        """Write the epoch."""
        self._end(trial, {"state": "stopped early", "stopped_at": epoch})

    def close(self) -> None:
        """End the runs of trials that wait for a `resume`."""
        for trial in list(self.runs):
            self._end(trial, {"state": "unfinished"})

    def _end(self, trial: str, summary: Mapping[str, Any], exit_code: int = 0) -> None:
        run = self.runs.pop(trial)
        run.summary.update(summary)
        run.finish(exit_code=exit_code)
