"""The trainer of an ended trial, in which the next one of the same worker may begin.

What a GPU has recorded and compiled for the one then serves the other. Without a recording there is
nothing to save, and every trial has a trainer of its own.
"""

from __future__ import annotations

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
        """Free its memory."""
        self._trainer = None

    def take(self, config: TrainConfig) -> GeneralistTrainer | None:
        """The trainer, at the beginning of a run; None if there is none that can do this run."""
        trainer, self._trainer = self._trainer, None
        return trainer if trainer is not None and trainer.begin_anew(config) else None
