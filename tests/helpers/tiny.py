"""A configuration of seconds, and trials in their folders on the tiny problem."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.config.presets import short
from search.running.trial import TrialRun
from search.running.warmups import WarmupStore
from tests.helpers.problems import tiny_dataset, two_experts


def tiny_config() -> TrainConfig:
    """Two epochs on 200 digits."""
    data = DataConfig(n_train=200, n_validation=50)
    config = short(data=data, model=ModelConfig(width=4), epochs=2)
    return dataclasses.replace(config, batch_size=16)


def begin(
    folder: Path, *, store: Path | None = None, config: TrainConfig | None = None
) -> TrialRun:
    """A trial of `two_experts()`, or `config`, as a new process finds it."""
    warmups = WarmupStore(store, owner=str(folder)) if store is not None else None
    return TrialRun(folder, config or two_experts(), tiny_dataset(), warmups=warmups)


def finish(trial: TrialRun) -> TrialRun:
    """Train a trial to its end, and release its mixtures."""
    while not trial.is_done:
        trial.advance()
    trial.release()
    return trial
