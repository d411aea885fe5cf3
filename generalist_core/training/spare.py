"""The trainer of an ended trial, in which the next one of the same worker may begin.

What a GPU has recorded and compiled for the one then serves the other. Without a recording there is
nothing to save, and every trial has a trainer of its own.
"""

from __future__ import annotations

import gc

from generalist_core.config import TrainConfig
from generalist_core.training.trainer import GeneralistTrainer


class SpareTrainer:
    """At most one trainer, whose data and factory of models are those of all trials."""

    def __init__(self) -> None:
        self._trainer: GeneralistTrainer | None = None

    def keep(self, trainer: GeneralistTrainer) -> None:
        """Keep a trainer that is no longer used, if it replays what it recorded."""
        self._trainer = trainer if trainer.replays else None

    def drop(self) -> None:
        """Free its memory; recordings refer to the trainer that keeps them."""
        self._trainer = None
        gc.collect()

    def take(self, config: TrainConfig) -> GeneralistTrainer | None:
        """The trainer, at the beginning of a run; None if there is none that can do this run."""
        if self._trainer is None:
            return None
        if not self._trainer.begin_anew(config):
            self.drop()
        trainer, self._trainer = self._trainer, None
        return trainer
