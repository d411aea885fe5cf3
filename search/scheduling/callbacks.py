"""Callbacks: objects that follow what happens in a sweep."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Any, Generic, TypeVar

from generalist_core.training.evaluator import OperatingPoint
from search.study.failures import Failure
from search.study.records import Proposal
from search.study.results import Results

log = logging.getLogger(__name__)


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


Watcher = TypeVar("Watcher")


class MayFail(Generic[Watcher]):
    """What only watches a training: its first error is logged, and afterwards it is not used again.

    The training goes on, because its result does not depend on who watches it.
    """

    def __init__(self, name: str, make: Callable[[], Watcher]) -> None:
        """Make the watcher; `name` says in the warning what can no longer be seen."""
        self.name = name
        self.watcher: Watcher | None = None
        self._try(lambda: setattr(self, "watcher", make()))

    def use(self, work: Callable[[Watcher], object]) -> None:
        """Let the watcher do this, unless it has failed."""
        watcher = self.watcher
        if watcher is not None:
            self._try(lambda: work(watcher))

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self.watcher = None
            why = f"{type(error).__name__}: {error}"
            text = "%s has stopped, while the training goes on. The cause: %s"
            log.warning(text, self.name, why, exc_info=error)


def _of_each(method: Callable[..., None]) -> Callable[..., None]:
    """The method that calls `method` of each callback."""

    @functools.wraps(method)
    def call(self: Callbacks, *arguments: Any) -> None:
        tell = methodcaller(method.__name__, *arguments)
        for callback in self.callbacks:
            tell(callback)
        for watcher in self.watchers:
            watcher.use(tell)

    return call


class Callbacks(Callback):
    """Several callbacks as one; they are called in their order, and `watchers` last."""

    def __init__(self, *callbacks: Callback, watchers: Sequence[MayFail[Callback]] = ()) -> None:
        self.callbacks = callbacks
        self.watchers = watchers

    on_begun = _of_each(Callback.on_begun)
    on_metrics = _of_each(Callback.on_metrics)
    on_completed = _of_each(Callback.on_completed)
    on_failed = _of_each(Callback.on_failed)
    on_stopped = _of_each(Callback.on_stopped)
    close = _of_each(Callback.close)
