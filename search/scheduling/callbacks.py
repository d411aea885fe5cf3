"""Callbacks: objects that follow what happens in a sweep."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
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


def _of_each(method: Callable[..., None]) -> Callable[..., None]:
    """The method that calls `method` of each callback."""

    @functools.wraps(method)
    def call(self: Callbacks, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, method.__name__)(*arguments)

    return call


class Callbacks(Callback):
    """Several callbacks as one; they are called in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    on_begun = _of_each(Callback.on_begun)
    on_metrics = _of_each(Callback.on_metrics)
    on_completed = _of_each(Callback.on_completed)
    on_failed = _of_each(Callback.on_failed)
    on_stopped = _of_each(Callback.on_stopped)
    close = _of_each(Callback.close)
