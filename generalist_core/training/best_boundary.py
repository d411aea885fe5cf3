"""The boundary of co-training that mixtures are released from: the last one, unless it overfits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from generalist_core.training.averaging import Weights


class BestBoundary:
    """The experts' averages at the best evaluated boundary so far.

    Robust accuracy falls again late in many trainings (Rice, Wong & Kolter 2020, robust
    overfitting), so the last epoch need not be the best. A boundary is worth the product of the
    global learner's accuracies, its hypervolume. A later one takes the place of an earlier one
    unless it is worth less than the most seen by more than 0.5 / sqrt(n_images), the largest
    standard error of an accuracy: noise alone turns no training back.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.averages: list[Weights] = []
        self.seen_epoch = -1
        self._most = -math.inf

    def see(
        self,
        epoch: int,
        accuracies: Mapping[str, float],
        n_images: int,
        averages: Sequence[Weights],
    ) -> None:
        """Take in a boundary: the global learner's accuracies, copies of the experts' averages."""
        worth = math.prod(accuracies.values())
        if worth >= self._most - 0.5 / math.sqrt(n_images):
            self.epoch = epoch
            self.averages = [[tensor.clone() for tensor in weights] for weights in averages]
        self._most = max(self._most, worth)
        self.seen_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and numbers; the tensors are its own."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        vars(self).update(state)
