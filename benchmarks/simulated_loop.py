"""A loop over trainings drives the search, in simulated time: for its simulation and research."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search.running.trial import Training
from search.scheduling.searcher import Searcher
from search.study.records import Proposal


@dataclass
class SimulatedWorker:
    """One of several workers in simulated time, which is cost."""

    trial: str
    training: Training
    began: float

    @property
    def clock(self) -> float:
        """When this worker is done with what it has trained so far."""
        return self.began + self.training.trainer.forward_images


def run_here(searcher: Searcher, begin: Callable[[Proposal], Training]) -> None:
    """Run all trials of a search: an epoch at a time, always of the worker that is behind.

    With one worker trials simply follow each other. An error ends the search, as it would end a
    program: nobody could tell a trial that fails from a fault of the caller's.
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
    """Train an epoch of the first worker that need not wait; itself if its trial has ended."""
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
