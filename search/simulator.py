"""Trainings without training: learning curves by formula, for research on the search and its tests.

Everything else is what a sweep runs: the trainer's epochs, keys and costs, warm-ups and claims,
rungs, proposals, the ledger and its sampler. There is no clock and no chance: equal seeds give
equal sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from generalist_core.averaging import Weights
from generalist_core.codec import to_json
from generalist_core.config import (
    MART,
    PGD,
    SGD,
    TRADES,
    Adam,
    AdamW,
    Constant,
    ExpertConfig,
    Ratio,
    TrainConfig,
    as_weights,
)
from generalist_core.cost import FORWARD, evaluation_cost, update_cost
from generalist_core.data import Dataset, Split
from generalist_core.evaluation import OperatingPoint
from generalist_core.experts import Expert
from generalist_core.randomness import derive_seed
from generalist_core.trainer import GeneralistTrainer, Metrics


@dataclass(frozen=True, kw_only=True)
class World:
    """How well experts learn, in formulas with the traits that recorded digits runs have.

    Of random configurations of the space `full` a tenth is good; the robust expert's accuracy after
    an eighth of the run foretells the worth of the front moderately, the natural expert's nothing,
    the global learner's after the first sync nearly all; mixtures after frequent syncs differ
    little. Accuracies are those of `n_validation` images; `n_train` counts the cost.
    """

    n_train: int = 1000
    n_validation: int = 500
    best_sgd_lr: float = 3.0
    best_adam_lr: float = 1.2e-2
    width: float = 1.0
    natural: float = 0.98
    robust: float = 0.68
    cost_of_robustness: float = 0.06

    def skill(self, expert: ExpertConfig, progress: float) -> float:
        """How much of its task an expert has learned at `progress`, in [0, 1]."""
        optimizer = expert.optimizer
        if isinstance(optimizer, SGD):
            off = math.log10(optimizer.lr / (1 - optimizer.momentum) / self.best_sgd_lr)
        else:
            off = math.log10(optimizer.lr / self.best_adam_lr)
        decay = optimizer.weight_decay * (0.1 if isinstance(optimizer, AdamW) else 2.0)
        late = 0.0 if isinstance(expert.schedule, Constant) else expert.schedule(0.98)
        quality = math.exp(-0.5 * (off / self.width) ** 2 - 3 * decay - 0.1 * late)
        if isinstance(expert.loss, MART):
            quality *= 0.9
        if isinstance(expert.attack, PGD):
            quality *= 1 - 0.3 * math.exp(-expert.attack.steps / 3)
        speed = 2 + 6 * quality + (1 if isinstance(optimizer, Adam | AdamW) else 0)
        return quality * (1 - math.exp(-speed * progress))

    def alone(self, expert: ExpertConfig, progress: float) -> tuple[float, float]:
        """Natural and robust accuracy of an expert that has met no other."""
        learned = self.skill(expert, progress)
        if expert.attack is None:
            return 0.1 + (self.natural - 0.1) * learned, 0.0
        cautious = math.log(expert.loss.beta / 3) if isinstance(expert.loss, TRADES) else 0.0
        natural = self.natural - self.cost_of_robustness * (1 + 0.3 * cautious)
        robust = self.robust * (1 + 0.03 * cautious)
        return 0.1 + (natural - 0.1) * learned, robust * learned

    def mixed(
        self, config: TrainConfig, ratio: Ratio | None, progress: float
    ) -> tuple[float, float]:
        """Natural and robust accuracy of a mixture in co-training; of the global one at None.

        Each expert counts for what it has learned. How far a mixture can leave the ratio that it
        was trained at depends on the time since the last sync and on the natural rate then.
        """
        natural, robust = (
            next((e for e in config.experts if (e.attack is None) == clean), config.experts[0])
            for clean in (True, False)
        )
        epochs = range(config.sync.start_epoch, config.epochs)
        trained = math.fsum(config.weights_at(epoch)[1] for epoch in epochs) / len(epochs)
        rate = natural.optimizer.lr * natural.schedule(progress)
        reach = 1 - math.exp(-config.sync.every_epochs * 16 / config.epochs * rate * 10)
        asked = trained if ratio is None else as_weights(ratio, 2)[1]
        share = trained + reach * (asked - trained)
        easy, hard = self.skill(natural, progress), self.alone(robust, progress)
        joint = (hard[0] - 0.1) / (self.natural - self.cost_of_robustness - 0.1)
        learned = min(1.0, joint + 0.3 * (1 - share) * max(0.0, easy - joint))
        given_up = self.cost_of_robustness * share**2
        kept = 1 - (1 - share) ** 3.5
        return 0.1 + (self.natural - given_up - 0.1) * learned, hard[1] * kept


class SimulatedTrainer(GeneralistTrainer):
    """A trainer whose experts learn by formula: the same epochs, warm-ups and costs."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        super().__init__(config, _DATA, model=_no_model)
        self.world = world
        self._n_batches = 1
        self._identity = to_json(config)

    def _train(self, experts: Sequence[Expert], *_: Any) -> Metrics:
        epoch = experts[0].epoch
        if self._global is None and epoch >= self.config.sync.start_epoch:
            self._begin_cotraining()
        for expert in experts:
            expert.epoch += 1
            self.forward_images += self.world.n_train * update_cost(expert.config)
        metrics = self._epoch_metrics(experts, [0.0] * len(experts), epoch)
        return {**metrics, "seconds": 0.0}

    @property
    def reused_forward_images(self) -> int:
        """As of real images."""
        adopted = ((e.adopted_epochs, update_cost(e.config)) for e in self.experts)
        return sum(epochs * cost * self.world.n_train for epochs, cost in adopted)

    def true_accuracies(self, ratio: Ratio) -> tuple[float, float]:
        """What a mixture is worth on infinitely many images."""
        return self.world.mixed(self.config, ratio, self.release_epoch / self.config.epochs)

    def _released(self, ratio: Ratio) -> OperatingPoint:
        n_images = self.world.n_validation
        self.forward_images += n_images * evaluation_cost(self.config.evaluation)
        seen = self._seen(self.true_accuracies(ratio), "release")
        names = self.config.evaluation.objectives
        accuracies = dict(zip(names, seen, strict=True))
        epoch = self.release_epoch
        return OperatingPoint(ratio=ratio, accuracies=accuracies, n_images=n_images, epoch=epoch)

    def _seen(self, true: tuple[float, float], *purpose: str | int) -> list[float]:
        """What `n_validation` images show, the same for equal configurations at equal times."""
        seed = derive_seed(0, self._identity, *purpose)
        counts = np.random.default_rng(seed).binomial(self.world.n_validation, true)
        return [float(count) / self.world.n_validation for count in counts]

    def _judged_as(self, name: str, weights: Weights, *, attacked: bool) -> Metrics:  # noqa: ARG002
        if name == "global":
            epoch = self.epoch
            true = self.world.mixed(self.config, None, epoch / self.config.epochs)
        else:
            epoch = self.expert(name).epoch
            true = self.world.alone(self.expert(name).config, epoch / self.config.epochs)
        evaluation, n_images = self.config.evaluation, self.world.n_validation
        between = min(evaluation.n_images_between or n_images, n_images)
        self.forward_images += between * (evaluation_cost(evaluation) if attacked else FORWARD)
        seen = zip(evaluation.objectives, self._seen(true, name, epoch), strict=True)
        return {f"accuracy/{name}/{o}": v for o, v in seen if attacked or o == "natural"}


@dataclass
class WarmupsInMemory:
    """Warm-ups of simulated trainings; what `search.warmups.WarmupStore` is on disk."""

    states: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)

    def find(self, keys: Sequence[str], epoch: int) -> int | None:
        """The latest epoch <= `epoch` whose state is stored."""
        epochs = range(min(epoch, len(keys) - 1), 0, -1)
        return next((e for e in epochs if (keys[e], e) in self.states), None)

    def load(self, key: str, epoch: int) -> Mapping[str, Any] | None:
        """A stored state."""
        return self.states[key, epoch]

    def publish(
        self,
        key: str,
        epoch: int,
        state: Mapping[str, Any],
        about: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        """Store a state; there is nobody to read what it is about."""
        self.states[key, epoch] = state

    def claim(self, key: str) -> ClaimInMemory | None:
        """The right to train what `key` names; None if another has it."""
        if key in self.claimed:
            return None
        self.claimed.add(key)
        return ClaimInMemory(self, key)


@dataclass
class ClaimInMemory:
    """A claim that is held until `release`."""

    warmups: WarmupsInMemory
    key: str

    def release(self) -> None:
        """Let others claim."""
        self.warmups.claimed.discard(self.key)


def _no_model(*_: Any) -> nn.Module:
    return _Nothing()


class _Nothing(nn.Module):
    """One weight, which nobody trains."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two logits an image."""
        return self.weight.expand(len(x), 2)


_SPLIT = Split(images=torch.zeros(2, 1, 1, 1), labels=torch.tensor([0, 1]))
_DATA = Dataset(name="nothing", train=_SPLIT, validation=_SPLIT)
