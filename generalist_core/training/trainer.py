"""Generalist: experts trained side by side, mixed into a global learner, and restarted from it."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.config.codec import to_dict
from generalist_core.data.splits import Batch, Dataset, n_batches, train_batches
from generalist_core.device import resolve_device, training_precision
from generalist_core.fingerprints import model_fingerprint, split_fingerprint
from generalist_core.models.build import ModelFactory
from generalist_core.randomness import GeneratorNoise, Noise, derive_seed, generator, global_seed
from generalist_core.training.averaging import (
    Average,
    Weights,
    all_finite,
    copy_weights,
    mix,
    named,
)
from generalist_core.training.best_boundary import BestBoundary
from generalist_core.training.cost import update_cost
from generalist_core.training.evaluator import Evaluator, OperatingPoint
from generalist_core.training.experts import Expert, initial_model
from generalist_core.training.release import refined
from generalist_core.training.warmup_keys import (
    contribution_weights,
    discarded_warmups,
    progress_at,
    ratio_is_constant,
    warmup_keys,
)
from generalist_core.user_code import pinned
from generalist_core.validation import InvalidConfigError, require

Metrics = dict[str, float]


class DivergedError(ArithmeticError):
    """An expert's loss or weights are no longer finite."""


class GeneralistTrainer:
    """Algorithm 1 of Wang & Wang (2023), for two or more experts.

    It returns metrics and logs nothing. `epoch` counts the epochs that all experts have done;
    `forward_images` the cost so far (see `generalist_core.training.cost`). Before the first sync the experts
    share nothing but their initial weights and the order of the data: each may be trained ahead of
    the others (`train_warmup`) or adopt what another run trained (`adopt_warmup`), to equal bits.
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
            InvalidConfigError: no such device or model, or an own function that is not there.
        """
        self.config = config = pinned(config)
        self.device = resolve_device(config.device)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        self.train_split = data.train.to(self.device)
        self._n_batches = n_batches(self.train_split, config.batch_size)
        initial = initial_model(config, data, model)
        self._model_fingerprint = model_fingerprint(initial)
        initial = initial.to(self.device, self.dtype)
        self.experts = [
            Expert(
                expert,
                copy.deepcopy(initial),
                config,
                n_classes=data.n_classes,
            )
            for expert in config.experts
        ]
        self._contribution_weights = contribution_weights(config)
        for weights in self._contribution_weights[:1]:
            for expert, weight in zip(self.experts, weights, strict=True):
                expert.contribution.restart(mix([expert.weights], [weight]))
        self._discarded = discarded_warmups(config)
        for name in self._discarded:
            self.expert(name).epoch = config.sync.start_epoch
        self.evaluator = Evaluator(
            initial,
            data.validation.to(self.device),
            config.evaluation,
            seed=config.seed,
            dtype=self.dtype,
            fold_batchnorm=config.fold_batchnorm,
        )
        self._global: Average | None = None
        self._best = BestBoundary()
        self.forward_images = 0

    @property
    def epoch(self) -> int:
        """The epochs that all experts have done, or need not do."""
        return min(expert.epoch for expert in self.experts)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        for expert in self.experts:
            expert.epoch = epoch

    def expert(self, name: str) -> Expert:
        """The expert of that name."""
        return next(expert for expert in self.experts if expert.config.name == name)

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.epoch >= self.config.epochs

    @property
    def global_learner(self) -> Weights:
        """The averaged mixture; before the first sync, the sum of the experts' contributions."""
        if self._global is not None:
            return self._global.weights
        is_constant = ratio_is_constant(self.config)
        weights = self.config.weights_at(0) if is_constant else [1.0] * len(self.experts)
        return mix([expert.contribution.weights for expert in self.experts], weights)

    def train_epoch(
        self, batches: Iterable[Batch] | None = None, noises: Sequence[Noise] | None = None
    ) -> Metrics:
        """Train all experts for one epoch; returns losses, learning rates, weights and cost.

        Before the first sync, experts that are ahead of this epoch already are left out.

        Args:
            batches: pairs of images (n, c, h, w) in [0, 1] and labels (n,); by default an epoch of
                the training split, its order and augmentation given by (seed, epoch).
            noises: where each expert's attack draws from; by default by (seed, epoch, expert).

        Raises:
            DivergedError: a loss or weight is not finite; the trainer is then of no further use.
        """
        due = [expert for expert in self.experts if expert.epoch == self.epoch]
        return self._train(due, batches, noises)

    @property
    def warming(self) -> list[str]:
        """The names of the experts that have epochs to do before the first sync."""
        start = self.config.sync.start_epoch
        return [expert.config.name for expert in self.experts if expert.epoch < start]

    def train_warmup(self, name: str) -> Metrics:
        """Train one expert alone for its next epoch before the first sync; as `train_epoch`."""
        require(name in self.warming, "an expert before the first sync", repr(name))
        return self._train([self.expert(name)], None, None)

    def warmup_keys(self, name: str) -> tuple[str, ...]:
        """The keys of an expert's states after 0, 1, ..., `sync.start_epoch` epochs.

        They hold for the default batches and noises.
        """
        return warmup_keys(
            self.config,
            name,
            data=self._data_fingerprint,
            model=self._model_fingerprint,
            n_batches=self._n_batches,
            device_kind=self.device.type,
        )

    def warmup_state(self, name: str) -> dict[str, Any]:
        """An expert before the first sync, for `adopt_warmup`; the tensors are its own.

        Raises:
            InvalidConfigError: co-training has begun, or this expert has no warm-up.
        """
        fits = self._global is None and name not in self._discarded
        require(fits, f"{name!r} in its warm-up", f"epoch {self.epoch}")
        state = self.expert(name).state_dict()
        del state["adopted_epochs"]
        return {"expert": name, **state}

    def adopt_warmup(self, name: str, state: Mapping[str, Any]) -> None:
        """Put an expert where another run's `warmup_state` of equal key stood.

        Raises:
            InvalidConfigError: the state is another expert's, or of an epoch that this expert has
                passed or does not reach before the first sync.
        """
        expert, epoch = self.expert(name), state["epoch"]
        require(state["expert"] == name, f"a warm-up of {name!r}", repr(state["expert"]))
        fits = name in self.warming and expert.epoch <= epoch <= self.config.sync.start_epoch
        law = f"a warm-up from epoch {expert.epoch} to the first sync"
        require(fits, law, f"epoch {epoch} of a warm-up to {self.config.sync.start_epoch}")
        adopted = expert.adopted_epochs + epoch - expert.epoch
        expert.load_state_dict({**state, "adopted_epochs": adopted})

    @property
    def reused_forward_images(self) -> int:
        """What adopted warm-ups saved; `forward_images` plus this is the cost of training alone."""
        n_images = self._n_batches * min(self.config.batch_size, len(self.train_split))
        return sum(
            expert.adopted_epochs * n_images * update_cost(expert.config) for expert in self.experts
        )

    def evaluate(self) -> Metrics:
        """Validation accuracies of what is in training, on the images meant for that.

        Before the first sync that is each expert that is trained there, then the global learner.
        """
        metrics: Metrics = {}
        if self._global is not None:
            metrics = self._judged_as("global", self.global_learner, attacked=True)
            if self.config.evaluation.release == "best":
                averages = [expert.average.weights for expert in self.experts]
                self._best.see(
                    self.epoch, metrics, self.evaluator.n_images_during_training, averages
                )
        else:
            names = (expert.config.name for expert in self.experts)
            for name in (name for name in names if name not in self._discarded):
                metrics |= self.evaluate_expert(name)
        return {**metrics, "forward_images": self.forward_images}

    def evaluate_expert(self, name: str) -> Metrics:
        """Validation accuracies of one expert's average, under attack only if it trains on one.

        What never saw an attack is not robust; to count that costs more than a natural epoch.
        """
        expert = self.expert(name)
        attacked = expert.config.attack is not None
        return self._judged_as(name, expert.average.weights, attacked=attacked)

    def release(self, ratios: Sequence[Ratio] | None = None) -> list[OperatingPoint]:
        """Evaluate mixtures of the experts' averages on validation images.

        Args:
            ratios: one mixture each; by default `config.evaluation.release_ratios` and refinements.
        """
        if ratios is not None:
            return [self._released(ratio) for ratio in ratios]
        evaluation = self.config.evaluation
        n_refinements = evaluation.n_refinements if len(self.experts) == 2 else 0
        return refined(self._released, evaluation.release_ratios, n_refinements)

    def _released(self, ratio: Ratio) -> OperatingPoint:
        accuracies, cost = self.evaluator.judge(self.mixture(ratio))
        self.forward_images += cost
        return OperatingPoint(
            mixing_ratio=ratio,
            accuracies=accuracies,
            n_images=self.evaluator.n_images,
            epoch=self.release_epoch,
        )

    @property
    def release_epoch(self) -> int:
        """The epoch that mixtures are of: the present one, or a better one that was evaluated.

        With `evaluation.release = "last"`, or where the present one was not evaluated, the former.
        """
        return self._best.epoch if self._best.seen_epoch == self.epoch else self.epoch

    def mixture(self, ratio: Ratio) -> Weights:
        """The experts' averages, of `release_epoch`, mixed by `ratio`."""
        return mix(self._averages(), as_weights(ratio, len(self.experts)))

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """Each expert's average as a state dict: from these any mixture can be made again."""
        pairs = zip(self.experts, self._averages(), strict=True)
        return {expert.config.name: named(expert.model, average) for expert, average in pairs}

    def _averages(self) -> list[Weights]:
        if self.release_epoch < self.epoch:
            return self._best.averages
        return [expert.average.weights for expert in self.experts]

    def state_dict(self) -> dict[str, Any]:
        """Everything that training needs to go on, loadable with `weights_only=True`."""
        return {
            "config": to_dict(self.config),
            "epoch": self.epoch,
            "forward_images": self.forward_images,
            "experts": {expert.config.name: expert.state_dict() for expert in self.experts},
            "global": self._global.state_dict() if self._global is not None else None,
            "best": self._best.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit-equal on the CPU to never having stopped.

        Raises:
            InvalidConfigError: the state is of another configuration.
        """
        saved, own = state["config"], to_dict(self.config)
        if saved != own:
            names = sorted(name for name in own | saved if own.get(name) != saved.get(name))
            raise InvalidConfigError(
                "The checkpoint must be of this configuration, but differs in "
                f"{', '.join(names)}. Its own is under 'config' in it."
            )
        for expert in self.experts:
            expert.load_state_dict(state["experts"][expert.config.name])
        self.forward_images = state["forward_images"]
        self._best.load_state_dict(state["best"])
        self._global = None
        if state["global"] is not None:
            self._global = Average(self.experts[0].weights, self.config.mixing)
            self._global.load_state_dict(state["global"])

    def _train(
        self,
        experts: Sequence[Expert],
        batches: Iterable[Batch] | None,
        noises: Sequence[Noise] | None,
    ) -> Metrics:
        """One epoch of experts that stand at the same epoch: some in the warm-up, later all."""
        started, epoch = time.perf_counter(), experts[0].epoch
        if self._global is None and epoch >= self.config.sync.start_epoch:
            self._begin_cotraining()
        synced = self.config.sync.is_sync(epoch)
        if synced and self.config.sync.at == "boundary":
            self._sync()
        losses, batches = [], self.batches(epoch) if batches is None else batches
        with training_precision(self.config.precision):
            for step, (x, y) in enumerate(batches):
                drawn = noises or [self._noise(expert, step) for expert in experts]
                losses.append(self._step(experts, x, y, step, drawn))
                if synced and self.config.sync.at == "every_step":
                    self._sync()
        for expert in experts:
            expert.epoch += 1
        metrics = self._epoch_metrics(experts, torch.stack(losses).mean(0).tolist(), epoch)
        return {**metrics, "seconds": time.perf_counter() - started}

    def _step(
        self, experts: Sequence[Expert], x: Tensor, y: Tensor, step: int, noises: Sequence[Noise]
    ) -> Tensor:
        """One update of experts and of the global learner; the losses, (n_experts,)."""
        losses = []
        for expert, noise in zip(experts, noises, strict=True):
            progress = progress_at(self.config, expert.config, expert.epoch, step, self._n_batches)
            seed = derive_seed(self.config.seed, "model", expert.epoch, step, expert.config.name)
            with global_seed(seed, self.device):
                losses.append(expert.step(x, y, progress=progress, noise=noise))
            self.forward_images += update_cost(expert.config) * len(x)
        self._update_global(experts)
        return torch.stack(losses)

    def _update_global(self, experts: Sequence[Expert]) -> None:
        epoch = experts[0].epoch
        if self._global is not None:
            weights = self.config.weights_at(epoch)
            self._global.update(mix([expert.source for expert in self.experts], weights))
            return
        for expert, weight in zip(self.experts, self._contribution_weights[epoch], strict=True):
            if expert in experts:
                expert.update_contribution(weight)

    def _begin_cotraining(self) -> None:
        """From the first sync on the global learner is one average, not a sum of contributions.

        Experts that were not trained before begin as that learner.
        """
        learner = Average(self.global_learner, self.config.mixing)
        learner.n_updates = max(expert.contribution.n_updates for expert in self.experts)
        for expert in self.experts:
            if expert.config.name in self._discarded:
                expert.restart(learner)
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

    @functools.cached_property
    def _data_fingerprint(self) -> str:
        return split_fingerprint(self.train_split)

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch, as `train_epoch` takes them by default."""
        return train_batches(
            self.train_split,
            self.config.data,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=epoch,
            dtype=self.dtype,
        )

    def _noise(self, expert: Expert, step: int) -> Noise:
        """A stream an expert, epoch and step, so that none needs another's history."""
        purpose = ("noise", expert.epoch, step, expert.config.name)
        return GeneratorNoise(generator(self.device, self.config.seed, *purpose))

    def _judged_as(self, name: str, weights: Weights, *, attacked: bool) -> Metrics:
        accuracies, cost = self.evaluator.judge(weights, during_training=True, attacked=attacked)
        self.forward_images += cost
        return {f"accuracy/{name}/{objective}": value for objective, value in accuracies.items()}

    def _epoch_metrics(
        self, experts: Sequence[Expert], losses: Sequence[float], epoch: int
    ) -> Metrics:
        synced = float(self.config.sync.is_sync(epoch))
        metrics: Metrics = {"epoch": self.epoch, "synced": synced}
        for expert, loss in zip(experts, losses, strict=True):
            name = expert.config.name
            if not (math.isfinite(loss) and all_finite(expert.weights)):
                raise DivergedError(f"Expert {name!r} diverged in epoch {epoch}, loss {loss}.")
            metrics |= {
                f"epoch/{name}": expert.epoch,
                f"loss/{name}": loss,
                f"lr/{name}": expert.lr(epoch / self.config.epochs),
            }
        weights = self.config.weights_at(epoch)
        for expert, weight in zip(self.experts, weights, strict=True):
            metrics[f"weight/{expert.config.name}"] = weight
        cost = {
            "forward_images": self.forward_images,
            "reused_forward_images": self.reused_forward_images,
        }
        return {**metrics, **cost}
