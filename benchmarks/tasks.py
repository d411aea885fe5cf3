"""What searches are compared on: a base, its images, and how a model is judged that was found."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.simulator import SimulatedTrainer, World
from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.config.evaluation import NATURAL
from generalist_core.config.mixing import GLOBAL
from generalist_core.config.presets import short
from generalist_core.data.splits import Dataset, Split
from generalist_core.training.abstract_trainer import AbstractTrainer
from generalist_core.training.averaging import Weights
from generalist_core.training.evaluator import Evaluator, OperatingPoint
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import train_warmup, warming
from search.running.trial import cached_dataset
from spaces.lineages import as_lineage, robust_of, with_steps

Found = tuple[float, "list[Candidate]"]
"""What a baseline has found since the last time, after the cost so far in forward images."""

Trainer = TypeVar("Trainer", bound=AbstractTrainer)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that a method found: its validation accuracies, and its test accuracies on demand.

    Both are by objective, natural first; `test` measures the latter. `weights` is None in a
    simulation.
    """

    validated: Mapping[str, float]
    test: Callable[[], Mapping[str, float]]
    weights: Weights | None = None

    @functools.cached_property
    def tested(self) -> Mapping[str, float]:
        """The test accuracies, measured once."""
        return self.test()


@dataclass(frozen=True, kw_only=True)
class Task:
    """The base of all trials and its images; a simulation has no images."""

    config: TrainConfig
    data: Dataset | None = None

    @staticmethod
    def of(name: str, root: str, seed: int) -> Task:
        """The digits, Fashion-MNIST at 14x14 pixels, or a simulation; trainings use `seed`."""
        if name == "simulated":
            return Task(config=short())
        if name == "digits":
            config = short(data=DataConfig(n_validation=500), epochs=48)
        else:
            data = DataConfig(name=name, root=root, image_size=14, n_train=4000, n_validation=2000)
            config = short(data=data, epochs=24, epsilon=0.1)
        config = dataclasses.replace(config, seed=seed)
        return Task(config=config, data=cached_dataset(config.data))

    @property
    def images(self) -> Dataset:
        """The images; those of a simulation are white."""
        return self.data or World().images()

    @property
    def test(self) -> Split:
        """The test images of a task that has images."""
        assert self.data is not None
        assert self.data.test is not None
        return self.data.test

    def trainer(self, config: TrainConfig) -> AbstractTrainer:
        """A trainer of this task."""
        if self.data is None:
            return SimulatedTrainer(config, World())
        return GeneralistTrainer(config, self.data)

    def candidate(self, trainer: AbstractTrainer, point: OperatingPoint) -> Candidate:
        """What a trainer released."""
        released = point.mixing_ratio
        if isinstance(trainer, SimulatedTrainer):
            names = trainer.config.evaluation.objective_names
            ratio = None if released == GLOBAL else released
            true = dict(zip(names, trainer.true_accuracies(ratio), strict=True))
            return Candidate(validated=point.accuracies, test=lambda: true)
        assert isinstance(trainer, GeneralistTrainer)
        weights = [tensor.clone() for tensor in trainer.released(released)]
        tester = self.tester(trainer)
        return Candidate(
            validated=point.accuracies,
            test=lambda: tester.judge(weights).accuracies,
            weights=weights,
        )

    def tester(self, trainer: GeneralistTrainer) -> Evaluator:
        """Judges weights on the test images as the trainer does on the validation images."""
        config, model = trainer.config, trainer.evaluator.model
        return Evaluator(model, self.test, config.evaluation, seed=config.seed, dtype=trainer.dtype)

    def released(self, trainer: AbstractTrainer, *ratios: Ratio) -> list[Candidate]:
        """The mixtures of a trainer at these ratios."""
        return [self.candidate(trainer, point) for point in trainer.release(ratios)]

    def robust_only(self) -> float:
        """The natural test accuracy of the base's robust expert, trained alone to the end."""
        trainer = self.trainer(alone(self.config))
        if isinstance(trainer, SimulatedTrainer):
            return trainer.world.alone(self.config.experts[1], self.config.epochs)[0]
        trained_alone(trainer, self.config.epochs - 1)
        assert isinstance(trainer, GeneralistTrainer)
        judged = self.tester(trainer).judge(trainer.mixture(1.0), attacked=False)
        return judged.accuracies[NATURAL]

    def lineage(self, start: int, epochs: int = 1, *, steps: int | None = None) -> TrainConfig:
        """The base's robust expert at a constant rate until `start`, then `epochs` of a branch.

        With `steps` it trains on PGD of so many steps, which together can cross the ball.
        """
        config = as_lineage(self.config, start, start + epochs)
        return config if steps is None else with_steps(config, config.lineage, steps)

    def trades(self, params: Mapping[str, float]) -> TrainConfig:
        """The base's robust expert alone, on TRADES, with fields such as `loss.beta` set."""
        path = f"experts.{robust_of(self.config).name}"
        config = replace_at(self.config, f"{path}.loss", {"type": "TRADES"})
        config = replace_at(config, f"{path}.attack.loss", "kl")
        for name, value in params.items():
            config = replace_at(config, f"{path}.{name}", value)
        return alone(config)


def alone(config: TrainConfig) -> TrainConfig:
    """`config` with its only sync before the last epoch, up to which experts train alone."""
    sync = dataclasses.replace(config.sync, start_epoch=config.epochs - 1)
    return dataclasses.replace(config, sync=sync)


def trained_alone(trainer: Trainer, epochs: int) -> Trainer:
    """The trainer, after its robust expert alone has done so many epochs."""
    name = robust_of(trainer.config).name
    while trainer.expert(name).epoch < epochs and name in warming(trainer):
        train_warmup(trainer, name)
    return trainer
