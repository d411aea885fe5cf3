"""Callbacks: objects that follow what happens in a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.training.evaluator import OperatingPoint
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results


class Callback:
    """Follows a sweep; every method of this one does nothing.

    When a method is called, `results` already hold what it reports.
    """

    def on_begun(self, proposal: Proposal) -> None:
        """A trial begins, or continues after the sweep was interrupted."""

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """A running trial has trained an epoch."""

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """A trial has released its points."""

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:
        """A trial has failed."""

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:
        """A trial was stopped early, after `epoch` epochs."""

    def close(self) -> None:
        """The sweep has ended."""


class Callbacks(Callback):
    """Several callbacks as one; they are called in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def on_begun(self, proposal: Proposal) -> None:
        """Call `on_begun` of each callback."""
        for callback in self.callbacks:
            callback.on_begun(proposal)

    def on_metrics(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """Call `on_metrics` of each callback."""
        for callback in self.callbacks:
            callback.on_metrics(trial, metrics)

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Call `on_completed` of each callback."""
        for callback in self.callbacks:
            callback.on_completed(trial, points, results)

    def on_failed(self, trial: str, failure: Failure, results: Results) -> None:
        """Call `on_failed` of each callback."""
        for callback in self.callbacks:
            callback.on_failed(trial, failure, results)

    def on_stopped(self, trial: str, epoch: int, results: Results) -> None:
        """Call `on_stopped` of each callback."""
        for callback in self.callbacks:
            callback.on_stopped(trial, epoch, results)

    def close(self) -> None:
        """Close each callback."""
        for callback in self.callbacks:
            callback.close()
