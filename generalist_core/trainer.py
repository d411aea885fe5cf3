"""Generalist: experts trained side by side, mixed into a global learner, and restarted from it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.averaging import (
    Average,
    Weights,
    all_finite,
    copy_weights,
    mix,
    named,
    weights_of,
)
from generalist_core.codec import to_dict
from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.cost import evaluation_cost, update_cost
from generalist_core.data import Batch, Dataset, n_batches, train_batches
from generalist_core.device import resolve_device
from generalist_core.evaluation import OperatingPoint, evaluate
from generalist_core.experts import Expert
from generalist_core.models import ModelFactory, build_model
from generalist_core.randomness import (
    GeneratorNoise,
    Noise,
    derive_seed,
    generator,
    global_seed,
)
from generalist_core.validation import InvalidConfigError, require

Metrics = dict[str, float]


class DivergedError(ArithmeticError):
    """An expert's loss or weights are no longer finite."""


class GeneralistTrainer:
    """Algorithm 1 of Wang & Wang (2023), for two or more experts.

    It returns metrics and logs nothing. `epoch` counts the epochs done; `forward_images` the cost
    so far (see `generalist_core.cost`). Before the first sync the experts share nothing but their
    initial weights and the order of the data.
    """

    def __init__(
        self, config: TrainConfig, data: Dataset, *, model: ModelFactory | None = None
    ) -> None:
        """Build the experts.

        Args:
            config: the run; `config.model` is ignored where `model` is given.
            data: the images; moved to the configured device.
            model: `(n_classes, (c, h, w)) -> torch.nn.Module`, called once with seeded randomness.

        Raises:
            InvalidConfigError: no such device or model.
        """
        self.config = config
        self.device = resolve_device(config.device)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.train_split = data.train.to(self.device)
        self.validation_split = data.validation.to(self.device)
        initial = _initial_model(config, data, model).to(self.device, self.dtype)
        self.experts = [
            Expert(
                expert,
                copy.deepcopy(initial),
                config.mixing,
                n_classes=data.n_classes,
                precision=config.precision,
            )
            for expert in config.experts
        ]
        if not self._ratio_is_constant():
            for expert, weight in zip(self.experts, config.weights_at(0), strict=True):
                expert.share.restart(mix([expert.weights], [weight]))
        self._judged = initial.eval().requires_grad_(False)
        self._global: Average | None = None
        self.epoch = 0
        self.forward_images = 0

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.epoch >= self.config.epochs

    @property
    def global_learner(self) -> Weights:
        """The averaged mixture; before the first sync, the sum of the experts' shares."""
        if self._global is not None:
            return self._global.weights
        weights = (
            self.config.weights_at(0) if self._ratio_is_constant() else [1.0] * len(self.experts)
        )
        return mix([expert.share.weights for expert in self.experts], weights)

    def train_epoch(
        self, batches: Iterable[Batch] | None = None, noises: Sequence[Noise] | None = None
    ) -> Metrics:
        """Train all experts for one epoch; returns losses, learning rates, weights and cost.

        Args:
            batches: pairs of images (n, c, h, w) in [0, 1] and labels (n,); by default an epoch of
                the training split, its order and augmentation given by (seed, epoch).
            noises: where each expert's attack draws from; by default by (seed, epoch, expert).

        Raises:
            DivergedError: a loss or weight is not finite; the trainer is then of no further use.
        """
        started, epoch = time.perf_counter(), self.epoch
        if self._global is None and epoch >= self.config.sync.start_epoch:
            self._begin_cotraining()
        synced = self.config.sync.is_sync(epoch)
        if synced and self.config.sync.at == "boundary":
            self._sync()
        losses = []
        batches = self._batches() if batches is None else batches
        for step, (x, y) in enumerate(batches):
            losses.append(self._step(x, y, step, noises or self._noises(step)))
            if synced and self.config.sync.at == "every_step":
                self._sync()
        self.epoch += 1
        metrics = self._epoch_metrics(torch.stack(losses).mean(0).tolist(), epoch, synced)
        return {**metrics, "seconds": time.perf_counter() - started}

    def evaluate(self) -> Metrics:
        """Validation accuracies of each expert's average and of the global learner."""
        learners = {expert.config.name: expert.average.weights for expert in self.experts}
        metrics: Metrics = {}
        for name, weights in {**learners, "global": self.global_learner}.items():
            for objective, accuracy in self._accuracies(weights).items():
                metrics[f"accuracy/{name}/{objective}"] = accuracy
        return {**metrics, "forward_images": self.forward_images}

    def release(self, ratios: Sequence[Ratio] | None = None) -> list[OperatingPoint]:
        """Evaluate mixtures of the experts' averages on validation images.

        Args:
            ratios: one mixture each; by default `config.evaluation.release_ratios`.
        """
        points = []
        for ratio in self.config.evaluation.release_ratios if ratios is None else ratios:
            accuracies = self._accuracies(self.mixture(ratio))
            n_images = self._n_evaluated()
            points.append(OperatingPoint(ratio=ratio, accuracies=accuracies, n_images=n_images))
        return points

    def mixture(self, ratio: Ratio) -> Weights:
        """The experts' averages mixed by `ratio`."""
        weights = as_weights(ratio, len(self.experts))
        return mix([expert.average.weights for expert in self.experts], weights)

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """Each expert's average as a state dict: from these any mixture can be made again."""
        return {e.config.name: named(e.model, e.average.weights) for e in self.experts}

    def state_dict(self) -> dict[str, Any]:
        """Everything that training needs to go on, loadable with `weights_only=True`."""
        return {
            "config": to_dict(self.config),
            "epoch": self.epoch,
            "forward_images": self.forward_images,
            "experts": {expert.config.name: expert.state_dict() for expert in self.experts},
            "global": self._global.state_dict() if self._global is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit-equal on the CPU to never having stopped.

        Raises:
            InvalidConfigError: the state is of another configuration.
        """
        if state["config"] != to_dict(self.config):
            raise InvalidConfigError("The checkpoint must be of this configuration, but differs.")
        for expert in self.experts:
            expert.load_state_dict(state["experts"][expert.config.name])
        self.epoch, self.forward_images = state["epoch"], state["forward_images"]
        self._global = None
        if state["global"] is not None:
            self._global = Average(self.experts[0].weights, self.config.mixing)
            self._global.load_state_dict(state["global"])

    def _step(self, x: Tensor, y: Tensor, step: int, noises: Sequence[Noise]) -> Tensor:
        """One update of every expert and of the global learner; the losses, (n_experts,)."""
        losses = []
        for expert, noise in zip(self.experts, noises, strict=True):
            progress = self._progress(step if expert.config.schedule.per_step else 0)
            seed = derive_seed(self.config.seed, "model", self.epoch, step, expert.config.name)
            with global_seed(seed, self.device):
                losses.append(expert.step(x, y, progress=progress, noise=noise))
            self.forward_images += update_cost(expert.config) * len(x)
        self._update_global()
        return torch.stack(losses)

    def _update_global(self) -> None:
        weights = self.config.weights_at(self.epoch)
        if self._global is not None:
            self._global.update(mix([expert.source for expert in self.experts], weights))
            return
        constant = self._ratio_is_constant()
        for expert, weight in zip(self.experts, weights, strict=True):
            expert.update_share(1.0 if constant else weight)

    def _begin_cotraining(self) -> None:
        """From the first sync on the global learner is one average, not a sum of shares."""
        learner = Average(self.global_learner, self.config.mixing)
        learner.n_updates = self.experts[0].share.n_updates
        self._global = learner

    def _sync(self) -> None:
        """Every expert restarts from the global learner."""
        learner, sync = self.global_learner, self.config.sync
        for expert in self.experts:
            copy_weights(expert.weights, learner)
            if sync.restart_momentum:
                expert.optimizer.state.clear()
            if sync.restart_averages:
                expert.average.restart(learner)

    def _ratio_is_constant(self) -> bool:
        """Whether the ratio keeps its first value until the first sync."""
        first = self.config.weights_at(0)
        return all(self.config.weights_at(e) == first for e in range(self.config.sync.start_epoch))

    def _progress(self, step: int) -> float:
        per_epoch = n_batches(self.train_split, self.config.batch_size)
        return (self.epoch + step / per_epoch) / self.config.epochs

    def _batches(self) -> Iterable[Batch]:
        return train_batches(
            self.train_split,
            self.config.data,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=self.epoch,
            dtype=self.dtype,
        )

    def _noises(self, step: int) -> list[Noise]:
        """A stream a step and expert, so that neither needs another's history."""
        seed, epoch = self.config.seed, self.epoch
        return [
            GeneratorNoise(generator(self.device, seed, "noise", epoch, step, expert.config.name))
            for expert in self.experts
        ]

    def _accuracies(self, weights: Weights) -> dict[str, float]:
        copy_weights(weights_of(self._judged), weights)
        evaluation = self.config.evaluation
        verdicts = evaluate(
            self._judged, self.validation_split, evaluation, seed=self.config.seed, dtype=self.dtype
        )
        self.forward_images += evaluation_cost(evaluation) * self._n_evaluated()
        return {
            objective: verdict.double().mean().item() for objective, verdict in verdicts.items()
        }

    def _n_evaluated(self) -> int:
        n_images = self.config.evaluation.n_images
        return min(n_images or len(self.validation_split), len(self.validation_split))

    def _epoch_metrics(self, losses: Sequence[float], epoch: int, synced: bool) -> Metrics:
        metrics: Metrics = {"epoch": self.epoch, "synced": float(synced)}
        weights = self.config.weights_at(epoch)
        for expert, loss, weight in zip(self.experts, losses, weights, strict=True):
            name = expert.config.name
            if not (math.isfinite(loss) and all_finite(expert.weights)):
                raise DivergedError(f"Expert {name!r} diverged in epoch {epoch}, loss {loss}.")
            metrics |= {
                f"loss/{name}": loss,
                f"lr/{name}": expert.lr(epoch / self.config.epochs),
                f"weight/{name}": weight,
            }
        return {**metrics, "forward_images": self.forward_images}


def _initial_model(config: TrainConfig, data: Dataset, model: ModelFactory | None) -> nn.Module:
    """The initial weights of all experts, and a check that they fit the data."""
    if model is None:
        initial = build_model(config.model, data.n_classes, data.shape, seed=config.seed)
    else:
        with global_seed(derive_seed(config.seed, "init"), torch.device("cpu")):
            initial = model(data.n_classes, data.shape)
    with torch.no_grad():
        logits = copy.deepcopy(initial).eval()(torch.zeros(1, *data.shape))
    expected = (1, data.n_classes)
    require(
        tuple(logits.shape) == expected, f"logits of shape {expected}", f"{tuple(logits.shape)}"
    )
    return initial
