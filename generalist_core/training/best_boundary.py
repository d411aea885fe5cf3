"""The boundary of co-training that mixtures are released from: the last one, unless it overfits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.training.averaging import Weights


class BestBoundary:
    """The experts' averages, and the global learner, at the best boundary evaluated so far.

    In many trainings robust accuracy falls again late (Rice, Wong & Kolter 2020, robust
    overfitting), so the last epoch need not be the best. Boundaries are compared by their
    hypervolume, the product of the global learner's accuracies. A later one replaces an earlier one
    unless its hypervolume is below the largest seen by more than 0.5 / sqrt(n_images), the largest
    standard error of an accuracy: noise alone does not turn a training back.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.averages: list[Weights] = []
        self.global_learner: Weights | None = None
        self.seen_epoch = -1
        self._most = -math.inf

    def see(
        self,
        epoch: int,
        accuracies: Mapping[str, float],
        n_images: int,
        averages: Sequence[Weights],
        global_learner: Weights | None = None,
    ) -> None:
        """Take in a boundary: the global learner's accuracies, and copies of the weights."""
        hypervolume = math.prod(accuracies.values())
        if hypervolume >= self._most - 0.5 / math.sqrt(n_images):
            self.epoch = epoch
            self.averages = [_copies(weights) for weights in averages]
            self.global_learner = None if global_learner is None else _copies(global_learner)
        self._most = max(self._most, hypervolume)
        self.seen_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and numbers; the tensors are not copied."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        vars(self).update(state)


def _copies(weights: Weights) -> Weights:
    return [tensor.clone() for tensor in weights]
