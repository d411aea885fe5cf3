"""The front that a method has found by a cost: chosen on validation, judged on test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import MEASURES
from benchmarks.tasks import Candidate, Task
from generalist_core.training.abstract_trainer import AbstractTrainer
from generalist_core.training.evaluator import OperatingPoint
from search.front.front import hypervolume, non_dominated
from search.scheduling.callbacks import Callback
from search.study.results import Results


class FoundFront:
    """The candidates that no other dominates on validation images.

    After each step of a method its cost so far is noted, with the hypervolume of the front on test
    images, above (0, 0) and above the natural accuracy of robust-only training.
    """

    def __init__(self, task: Task) -> None:
        self.reference = task.robust_only()
        self.candidates: list[Candidate] = []
        self.history: list[dict[str, float]] = []

    def add(self, cost: float, found: Iterable[Candidate]) -> None:
        """Take in what was found by this cost."""
        self.candidates += found
        kept = non_dominated(rows_of([c.validated for c in self.candidates]))
        self.candidates = [c for c, keep in zip(self.candidates, kept, strict=True) if keep]
        values = rows_of([c.tested for c in self.candidates])
        measures = [hypervolume(values), hypervolume(values, (self.reference, 0.0))]
        self.history.append({"cost": cost, **dict(zip(MEASURES, measures, strict=True))})


class FrontTester(Callback):
    """Adds what the trials of a sweep release to a front."""

    def __init__(self, task: Task, front: FoundFront) -> None:
        self.task = task
        self.front = front
        self.trainers: dict[str, AbstractTrainer] = {}

    def on_completed(self, trial: str, points: Sequence[OperatingPoint], results: Results) -> None:
        """Add the points of a trial."""
        trainer = self.trainers.pop(trial)
        found = [self.task.candidate(trainer, point) for point in points]
        self.front.add(results.cost()["forward_images"], found)


def rows_of(accuracies: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """The accuracies as rows, (n, objectives)."""
    return np.array([list(row.values()) for row in accuracies])
