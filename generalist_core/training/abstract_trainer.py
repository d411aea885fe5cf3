"""What every trainer does: it orders epochs, evaluations and releases, and counts their cost."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from generalist_core.config import TrainConfig
from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.data.splits import Batch
from generalist_core.randomness import Noise
from generalist_core.training.averaging import Weights
from generalist_core.training.best_boundary import BestBoundary
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.experts import Expert
from generalist_core.training.release import refined
from generalist_core.training.warmup_keys import Origin, discarded_warmups, rate_factor

Metrics = dict[str, float]


class AbstractTrainer(ABC):
    """Trains experts epoch by epoch, evaluates and releases them, and counts what that costs.

    How experts are trained and judged is left to subclasses. `forward_images` is the cost so far
    (see `generalist_core.training.cost`); `discarded` names the experts whose warm-up the first
    sync would throw away: it is not trained.
    """

    def __init__(self, config: TrainConfig, experts: list[Expert], n_validation: int) -> None:
        """Begin with experts that are not trained, and `n_validation` images to judge them on."""
        self.config = config
        self.experts = experts
        self.n_validation = n_validation
        self.discarded = discarded_warmups(config)
        for name in self.discarded:
            self.expert(name).epoch = config.sync.start_epoch
        self.best = BestBoundary()
        self.forward_images = 0

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """What warm-ups depend on beside the configuration."""

    @property
    @abstractmethod
    def n_images_per_epoch(self) -> int:
        """The number of images that an expert is trained on in each epoch."""

    @property
    @abstractmethod
    def global_learner(self) -> Weights:
        """The averaged mixture."""

    @abstractmethod
    def learn(
        self,
        experts: Sequence[Expert],
        batches: Iterable[Batch] | None,
        noises: Sequence[Noise] | None,
    ) -> list[float]:
        """Train experts that have done the same number of epochs for the next one; their losses.

        The cost is counted; `batches` and `noises` are those of `train_epoch`.
        """

    @abstractmethod
    def judge(self, learner: str, *, attacked: bool) -> Mapping[str, float]:
        """The accuracies of an expert's average, or of the learner "global".

        They are those on `n_images_during_training` images; without `attacked` there is only the
        natural one. The cost is counted.
        """

    @abstractmethod
    def judge_released(self, released: Released) -> Mapping[str, float]:
        """The accuracies, on `n_images` images, of what is released from `release_epoch`.

        The cost is counted.
        """

    @property
    def n_images(self) -> int:
        """The number of images that a released mixture is judged on."""
        return min(self.config.evaluation.n_images or self.n_validation, self.n_validation)

    @property
    def n_images_during_training(self) -> int:
        """The number of images that learners in training are judged on."""
        wanted = self.config.evaluation.n_images_during_training or self.n_images
        return min(wanted, self.n_images)

    @property
    def epoch(self) -> int:
        """The number of epochs that all experts have done, or need not do."""
        return min(expert.epoch for expert in self.experts)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        for expert in self.experts:
            expert.epoch = epoch

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.epoch >= self.config.epochs

    @property
    def is_cotraining(self) -> bool:
        """Whether an epoch from the first sync on has been trained."""
        return self.epoch > self.config.sync.start_epoch

    def expert(self, name: str) -> Expert:
        """The expert of that name."""
        return next(expert for expert in self.experts if expert.config.name == name)

    def rests(self, expert: Expert) -> bool:
        """Whether an expert is not trained any more, because the first sync has come."""
        return expert.config.rests and expert.epoch >= self.config.sync.start_epoch

    def train_epoch(
        self, batches: Iterable[Batch] | None = None, noises: Sequence[Noise] | None = None
    ) -> Metrics:
        """Train all experts for one epoch; returns losses, learning rates, weights and cost.

        Before the first sync, experts that are ahead of this epoch already are left out.

        Args:
            batches: pairs of images (n, c, h, w) in [0, 1] and labels (n,); by default an epoch of
                the training split, its order and augmentation given by (seed, epoch).
            noises: the source of randomness of each expert's attack; by default given by
                (seed, epoch, expert).

        Raises:
            ArithmeticError: an expert diverged (`DivergedError`); the trainer is then of no
                further use.
        """
        due = [expert for expert in self.experts if expert.epoch == self.epoch]
        return self.train(due, batches, noises)

    def train(
        self,
        experts: Sequence[Expert],
        batches: Iterable[Batch] | None = None,
        noises: Sequence[Noise] | None = None,
    ) -> Metrics:
        """As `train_epoch`, for experts that have done the same number of epochs.

        These are some of the experts before the first sync, and all of them from it on; those that
        rest then are not trained, and `noises` are those of the others.
        """
        started, epoch = time.perf_counter(), experts[0].epoch
        trained = [expert for expert in experts if not self.rests(expert)]
        losses = self.learn(trained, batches, noises)
        for expert in experts:
            expert.epoch += 1
        metrics = self._epoch_metrics(trained, losses, epoch)
        return {**metrics, "seconds": time.perf_counter() - started}

    def evaluate(self) -> Metrics:
        """Validation accuracies of what is in training, on the images meant for that.

        Before the first sync these are the experts that are trained there, then the global learner.
        """
        metrics: Metrics = {}
        if self.is_cotraining:
            metrics = self._accuracies("global", attacked=True)
            if self.config.evaluation.release == "best":
                averages = [expert.average.weights for expert in self.experts]
                learner = self.global_learner if self.config.releases_global else None
                n_images = self.n_images_during_training
                self.best.see(self.epoch, metrics, n_images, averages, learner)
        else:
            for expert in self.experts:
                if expert.config.name not in self.discarded:
                    metrics |= self.evaluate_expert(expert.config.name)
        return {**metrics, "forward_images": self.forward_images}

    def evaluate_expert(self, name: str) -> Metrics:
        """Validation accuracies of one expert's average, under attack only if it trains on one.

        An expert that never saw an attack is not robust; to measure that would cost more than a
        natural epoch.
        """
        return self._accuracies(name, attacked=self.expert(name).config.attack is not None)

    def release(self, ratios: Sequence[Released] | None = None) -> list[OperatingPoint]:
        """Evaluate mixtures of the experts' averages, and the global learner, on validation images.

        Args:
            ratios: one mixture each, or `global`; by default `config.evaluation.release_ratios` and
                refinements, then the global learner if `releases_global`.
        """
        if ratios is not None:
            return [self._released(ratio) for ratio in ratios]
        evaluation = self.config.evaluation
        points = refined(self._released, evaluation.release_ratios, evaluation.n_refinements)
        return [*points, self._released(GLOBAL)] if self.releases_global else points

    @property
    def releases_global(self) -> bool:
        """Whether it is released: the configuration does so, and a sync has happened.

        A checkpoint of a version that did not release it lacks that of the best boundary.
        """
        is_there = self.release_epoch == self.epoch or self.best.global_learner is not None
        return self.config.releases_global and self.is_cotraining and is_there

    @property
    def release_epoch(self) -> int:
        """The epoch that mixtures and the global learner are released from.

        The best one that was evaluated, if the present one was evaluated too; otherwise, and with
        `evaluation.release = "last"`, the present one.
        """
        return self.best.epoch if self.best.seen_epoch == self.epoch else self.epoch

    @property
    def reused_forward_images(self) -> int:
        """What adopted warm-ups saved; `forward_images` plus this is the cost of training alone."""
        return sum(expert.adopted_cost for expert in self.experts) * self.n_images_per_epoch

    def _released(self, released: Released) -> OperatingPoint:
        return OperatingPoint(
            mixing_ratio=released,
            accuracies=self.judge_released(released),
            n_images=self.n_images,
            epoch=self.release_epoch,
        )

    def _accuracies(self, learner: str, *, attacked: bool) -> Metrics:
        accuracies = self.judge(learner, attacked=attacked)
        return {f"accuracy/{learner}/{name}": value for name, value in accuracies.items()}

    def _epoch_metrics(
        self, experts: Sequence[Expert], losses: Sequence[float], epoch: int
    ) -> Metrics:
        metrics: Metrics = {
            "epoch": self.epoch,
            "synced": float(self.config.sync.is_sync(epoch)),
            "forward_images": self.forward_images,
            "reused_forward_images": self.reused_forward_images,
        }
        n_batches = max(1, self.n_images_per_epoch // self.config.batch_size)
        for expert, loss in zip(experts, losses, strict=True):
            name, lr = expert.config.name, expert.config.optimizer.lr
            metrics |= {
                f"epoch/{name}": expert.epoch,
                f"loss/{name}": loss,
                f"lr/{name}": lr * rate_factor(self.config, expert.config, epoch, 0, n_batches),
            }
        weights = self.config.weights_at(epoch)
        for expert, weight in zip(self.experts, weights, strict=True):
            metrics[f"weight/{expert.config.name}"] = weight
        return metrics
