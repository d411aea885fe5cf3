"""A loop over trainings that drives a search in simulated time, for research and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search.running.trial import Training
from search.scheduling.searcher import Searcher
from search.study.records import Proposal


@dataclass
class SimulatedWorker:
    """One of several workers; its simulated time is cost."""

    trial: str
    training: Training
    began: float

    @property
    def clock(self) -> float:
        """The time at which this worker has finished what it has trained so far."""
        return self.began + self.training.trainer.forward_images


def run_here(searcher: Searcher, begin: Callable[[Proposal], Training]) -> None:
    """Run all trials of a search, one epoch at a time, always of the worker that is behind.

    With one worker, trials simply follow each other. Any error ends the search: a trial that fails
    could not be told from a defect of the caller.
    """
    workers: list[SimulatedWorker] = []
    now = 0.0
    while True:
        while not searcher.is_full and (proposal := searcher.propose()) is not None:
            workers.append(SimulatedWorker(proposal.trial, begin(proposal), now))
        if not workers:
            return
        worker = _next_able(searcher, workers)
        if worker is not None:
            now = worker.clock
            workers.remove(worker)


def _next_able(searcher: Searcher, workers: list[SimulatedWorker]) -> SimulatedWorker | None:
    """Train an epoch of the first worker that need not wait; the worker if its trial has ended."""
    for worker in sorted(workers, key=lambda worker: worker.clock):
        metrics = worker.training.attempt()
        if metrics is not None:
            return worker if _has_ended(searcher, worker, metrics) else None
    raise RuntimeError("Every trial waits for another's warm-up.")


def _has_ended(searcher: Searcher, worker: SimulatedWorker, metrics: dict[str, float]) -> bool:
    training = worker.training
    if searcher.report(worker.trial, metrics):
        training.close()
        return True
    if training.is_done:
        points = training.release()
        searcher.released(worker.trial, points, training.cost)
        return True
    return False
