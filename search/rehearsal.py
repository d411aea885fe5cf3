"""A training tried out before any work is done: what cannot run is said at once."""

from __future__ import annotations

from dataclasses import replace

import torch

from generalist_core.attacks import perturb
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from generalist_core.models import ModelFactory
from generalist_core.own import has_own
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.trainer import GeneralistTrainer
from search.own_code import running_own


def rehearse(config: TrainConfig, data: Dataset, model: ModelFactory | None = None) -> None:
    """Build a trainer, and run the user's own losses and attacks on two images.

    Raises:
        InvalidConfigError: something cannot run; the message says what and why.
    """
    with running_own(f"model {config.model.name}"):
        trainer = GeneralistTrainer(replace(config, n_accumulations=1), data, model=model)
    device, dtype = trainer.device, trainer.dtype
    noise = GeneratorNoise(generator(device, 0, "rehearsal"))
    x, y = next(iter(trainer.train_split.take(torch.arange(2)).batches(2, dtype)))
    for expert in trainer.experts:
        if has_own(expert.config.attack, expert.config.loss):
            with running_own(f"expert {expert.config.name}"):
                expert.step(x, y, progress=0.0, noise=noise)
    for named in config.evaluation.attacks:
        if has_own(named.attack):
            with running_own(f"evaluation attack {named.name}"):
                perturb(named.attack, trainer.evaluator.model, x, y, noise)
