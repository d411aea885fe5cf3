"""Trainings without training: learning curves by formula, for research on the search and its tests.

Everything else is what a sweep runs: the trainer's epochs, keys and costs, warm-ups and claims,
rungs, proposals, the ledger and its sampler. Nothing depends on the clock: equal seeds give equal
sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist_core.attacks.cost import FORWARD
from generalist_core.config import (
    MART,
    PGD,
    SGD,
    TRADES,
    Adam,
    AdamW,
    Constant,
    ExpertConfig,
    Optimizer,
    Ratio,
    TrainConfig,
    as_weights,
)
from generalist_core.config.codec import to_json
from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.data.splits import Dataset, Split
from generalist_core.randomness import derive_seed
from generalist_core.training.abstract_trainer import AbstractTrainer
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.training.experts import Expert
from generalist_core.training.warmup_keys import Origin

UNIT = 16
"""The epochs of the recorded runs: what experts know depends on the epochs trained, over these."""


@dataclass(frozen=True, kw_only=True)
class World:
    """How well experts learn, in formulas fitted by hand to recorded runs of the digits.

    A tenth of random configurations of the space `full` is good. Most experts reach natural
    accuracy soon; robust accuracy takes long and needs the right rate. The final hypervolume is
    predicted moderately by the robust warm-up, not at all by the natural one, and almost fully by
    the global learner after the first sync. Co-training at a low ratio loses robustness, and more
    of it the faster the natural expert moves; by as much, mixtures between two syncs depart from
    the ratio that they were trained at.

    `best_sgd_lr` (over 1 - momentum) and `best_adam_lr` are the best rates for robust experts, and
    `width` is the number of decades around them that are fair. Accuracies are those on
    `n_validation` images; `n_train` images per epoch count as cost.
    """

    n_train: int = 1000
    n_validation: int = 500
    best_sgd_lr: float = 3.0
    best_adam_lr: float = 1.2e-2
    width: float = 1.0
    natural: float = 0.98
    robust: float = 0.68
    cost_of_robustness: float = 0.04

    def images(self) -> Dataset:
        """White images, as many as there are in this world."""
        train, validation = (
            Split(images=torch.ones(n, 1, 1, 1), labels=torch.arange(n) % 2)
            for n in (self.n_train, self.n_validation)
        )
        return Dataset(name="white", train=train, validation=validation)

    def pace(self, optimizer: Optimizer) -> float:
        """The learning rate, in units of the best one of its kind."""
        if isinstance(optimizer, SGD):
            return optimizer.lr / (1 - optimizer.momentum) / self.best_sgd_lr
        return optimizer.lr / self.best_adam_lr

    def skill(self, expert: ExpertConfig, epochs: int) -> float:
        """The fraction of its task that an expert has learned after `epochs`, in [0, 1]."""
        optimizer, pace, time = expert.optimizer, self.pace(expert.optimizer), epochs / UNIT
        if expert.attack is None:
            too_fast = max(0.0, math.log10(pace) / self.width)
            return math.exp(-0.5 * too_fast**2) * (1 - math.exp(-90 * pace * time))
        decay = optimizer.weight_decay * (0.1 if isinstance(optimizer, AdamW) else 2.0)
        late = 0.0 if isinstance(expert.schedule, Constant) else expert.schedule(0.98)
        off = math.log10(pace) / self.width
        quality = math.exp(-0.5 * off**2 - 3 * decay - 0.1 * late)
        if isinstance(expert.loss, MART):
            quality *= 0.9
        if isinstance(expert.attack, PGD):
            quality *= 1 - 0.3 * math.exp(-expert.attack.steps / 3)
        speed = 2 + 6 * quality + (1 if isinstance(optimizer, Adam | AdamW) else 0)
        return quality * (1 - math.exp(-speed * time))

    def alone(self, expert: ExpertConfig, epochs: int) -> tuple[float, float]:
        """Natural and robust accuracy of an expert after `epochs` before its first sync."""
        learned = self.skill(expert, epochs)
        if expert.attack is None:
            return 0.1 + (self.natural - 0.1) * learned, 0.0
        cautious = math.log(expert.loss.beta / 3) if isinstance(expert.loss, TRADES) else 0.0
        natural = self.natural - self.cost_of_robustness * (1 + 0.3 * cautious)
        robust = self.robust * (1 + 0.03 * cautious)
        return 0.1 + (natural - 0.1) * (1 - math.exp(-6 * learned)), robust * learned

    def mixed(self, config: TrainConfig, ratio: Ratio | None, epoch: int) -> tuple[float, float]:
        """Natural and robust accuracy of a mixture in co-training; of the global learner if None.

        It lies between those of both experts alone, at the fraction of robustness that is kept. A
        robust expert that rests has learned nothing since the first sync.
        """
        natural, robust = (
            next((e for e in config.experts if (e.attack is None) == clean), config.experts[0])
            for clean in (True, False)
        )
        start, n_cotrained = config.sync.start_epoch, config.cotraining_epochs
        weights = [config.weights_at(start + n)[1] for n in range(n_cotrained)]
        trained = math.fsum(weights) / n_cotrained
        moved = math.sqrt(self.pace(natural.optimizer) * natural.schedule(epoch / config.epochs))
        reach = 1 - math.exp(-0.9 * min(config.sync.every_epochs, n_cotrained) * moved)
        asked = trained if ratio is None else as_weights(ratio, 2)[1]
        fraction = trained + reach * (asked - trained)
        pull = self.pace(natural.optimizer) / self.pace(robust.optimizer)
        half = min(max(0.36 * pull**0.3, 0.15), 0.8)
        kept = fraction**2.7 / (fraction**2.7 + half**2.7)
        learning = min(epoch, start) if robust.rests else epoch
        easy, hard = self.alone(natural, epoch)[0], self.alone(robust, learning)
        return easy + kept * (hard[0] - easy), kept * hard[1]


class SimulatedTrainer(AbstractTrainer):
    """A trainer whose experts learn by formula: the same epochs, warm-ups and costs."""

    def __init__(self, config: TrainConfig, world: World) -> None:
        experts = [
            Expert(expert, _Nothing(), config, n_classes=2, shape=(1, 4, 4))
            for expert in config.experts
        ]
        super().__init__(config, experts, world.n_validation)
        self.world = world
        self._identity = to_json(config)

    @property
    def origin(self) -> Origin:
        """The same in all simulations."""
        return Origin(
            data="nothing", model="nothing", n_batches=1, device_kind="cpu", precision="float32"
        )

    @property
    def n_images_per_epoch(self) -> int:
        """The number of training images of the world."""
        return self.world.n_train

    def learn(self, experts: Sequence[Expert], *_: Any) -> list[float]:
        """Count the cost; what experts know follows from their epochs and latest settings."""
        for expert in experts:
            expert.begin_epoch()
        costs = (update_cost(expert.config) for expert in experts)
        self.forward_images += self.world.n_train * sum(costs)
        return [0.0] * len(experts)

    @property
    def global_learner(self) -> list[Tensor]:
        """Nothing, as accuracies follow from the configuration."""
        return []

    def true_accuracies(self, ratio: Ratio | None) -> tuple[float, float]:
        """The accuracies of a mixture, or of the global learner if None, on all images."""
        return self.world.mixed(self.config, ratio, self.release_epoch)

    def judge(self, learner: str, *, attacked: bool) -> Mapping[str, float]:
        """The accuracies of an expert or the global learner on a sample of images.

        The cost is counted.
        """
        if learner == "global":
            epoch = self.epoch
            true = self.world.mixed(self.config, None, epoch)
        else:
            epoch = self.expert(learner).epoch
            true = self.world.alone(self.expert(learner).config, epoch)
        n_images = self.n_images_during_training
        cost = evaluation_cost(self.config.evaluation) if attacked else FORWARD
        self.forward_images += n_images * cost
        seen = self._seen(true, n_images, learner, epoch)
        return seen if attacked else {"natural": seen["natural"]}

    def judge_released(self, released: Released) -> Mapping[str, float]:
        """The accuracies of a mixture, or of the global learner, on a sample of images.

        The cost is counted.
        """
        self.forward_images += self.n_images * evaluation_cost(self.config.evaluation)
        ratio = None if released == GLOBAL else released
        return self._seen(self.true_accuracies(ratio), self.n_images, "release")

    def _seen(
        self, true: tuple[float, float], n_images: int, *purpose: str | int
    ) -> dict[str, float]:
        """Accuracies on that many images, the same for equal configurations at equal times."""
        seed = derive_seed(0, self._identity, *purpose)
        counts = np.random.default_rng(seed).binomial(n_images, true)
        names = self.config.evaluation.objective_names
        return {name: float(count) / n_images for name, count in zip(names, counts, strict=True)}


@dataclass
class WarmupsInMemory:
    """Warm-ups of simulated trainings, kept in memory instead of a `WarmupStore` on disk."""

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
        description: Mapping[str, Any],  # noqa: ARG002
    ) -> None:
        """Store a state, without its description."""
        self.states[key, epoch] = state

    def thin_out(self, keys: Sequence[str], gap: float) -> None:
        """Keep all states, as they are small."""

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


class _Nothing(nn.Module):
    """A model of one weight, which is never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two logits per image."""
        return self.weight.expand(len(x), 2)
