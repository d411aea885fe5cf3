"""Generalist: experts trained side by side, mixed into a global learner, and restarted from it."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.attacks.gradient import perturb
from generalist_core.config import Ratio, TrainConfig, as_weights
from generalist_core.config.codec import from_dict, to_dict
from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.data.splits import Batch, Dataset, n_batches, train_batches
from generalist_core.device import resolve_device, resolve_precision, training_precision
from generalist_core.fingerprints import images_digest, model_fingerprint, split_fingerprint
from generalist_core.models.build import ModelFactory
from generalist_core.models.state import fix_averaged, load_state, moved, state_of
from generalist_core.randomness import GeneratorNoise, Noise, derive_seed, generator, global_seed
from generalist_core.recording.attacks import RecordedAttacks
from generalist_core.recording.numbers import Number, StepNumbers, of_expert
from generalist_core.recording.steps import (
    Record,
    Recordings,
    Step,
    recorded_on_gpu,
    side_by_side,
    why_not_recorded,
)
from generalist_core.training.abstract_trainer import AbstractTrainer, Metrics
from generalist_core.training.averaging import Average, Weights, all_finite, mix, named
from generalist_core.training.cost import update_cost
from generalist_core.training.evaluator import Evaluator, Judgement
from generalist_core.training.experts import Expert, initial_model
from generalist_core.training.warmup_keys import (
    Origin,
    contribution_weights,
    rate_factor,
    ratio_is_constant,
)
from generalist_core.user_code import pinned
from generalist_core.validation import InvalidConfigError

__all__ = ["DivergedError", "GeneralistTrainer", "Metrics"]


log = logging.getLogger(__name__)

N_RECORDINGS = 8
"""How many recorded steps are kept: warm-ups and co-training of a few settings."""


class DivergedError(ArithmeticError):
    """An expert's loss or weights are no longer finite."""


class GeneralistTrainer(AbstractTrainer):
    """Algorithm 1 of Wang & Wang (2023), for two or more experts.

    It returns metrics and logs nothing. Before the first sync the experts share nothing but their
    initial weights and the order of the data: each may be trained ahead of the others or adopt what
    another run trained, to equal bits (see `generalist_core.training.warmups`).
    """

    record: Record = staticmethod(recorded_on_gpu)

    def __init__(
        self, config: TrainConfig, data: Dataset, *, model: ModelFactory | None = None
    ) -> None:
        """Build the experts.

        Args:
            config: the run; `config.model` names no architecture where `model` is given.
            data: the images; moved to the configured device.
            model: `(n_classes, (c, h, w)) -> torch.nn.Module`, called once with seeded randomness.

        Raises:
            InvalidConfigError: there is no such device, model, or function of the user's.
        """
        config = pinned(config, has_model=model is not None)
        self._data, self._factory = data, model
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        self.dtype = torch.float64 if self.precision == "float64" else torch.float32
        self.train_split = data.train.to(self.device)
        self._n_batches = n_batches(self.train_split, config.batch_size)
        initial = self._initial(config)
        run = replace(config, precision=self.precision)
        experts = [
            Expert(expert, copy.deepcopy(initial), run, n_classes=data.n_classes, shape=data.shape)
            for expert in config.experts
        ]
        replays = config.cuda_graph and self.device.type != "cpu"
        self.evaluator = Evaluator(
            initial,
            data.validation.to(self.device),
            config.evaluation,
            seed=config.seed,
            dtype=self.dtype,
            fold_batchnorm=config.fold_batchnorm,
            craft=RecordedAttacks(self.record) if replays else perturb,
        )
        self._learner = Average(experts[0].weights, config.mixing)
        self._recordings = Recordings(most=N_RECORDINGS)
        self._begin(config, experts)

    def _initial(self, config: TrainConfig) -> nn.Module:
        """The model that all experts begin as, on the device."""
        initial = initial_model(config, self._data, self._factory)
        self._model_fingerprint = model_fingerprint(initial)
        fix_averaged(initial)
        return moved(initial, self.device, self.dtype)

    def _begin(self, config: TrainConfig, experts: list[Expert]) -> None:
        """Begin a run with experts that have just been made, or made as new."""
        super().__init__(config, experts, len(self._data.validation))
        self._contribution_weights = contribution_weights(config)
        for weights in self._contribution_weights[:1]:
            for expert, weight in zip(self.experts, weights, strict=True):
                expert.contribution.restart(mix([expert.weights], [weight]))
        self._global: Average | None = None
        self._why_not_recorded = why_not_recorded(config, self.device)
        if config.cuda_graph and self.device.type != "cpu" and self._why_not_recorded:
            log.warning("Steps are not recorded, since %s.", self._why_not_recorded)

    def begin_anew(self, config: TrainConfig) -> bool:
        """Begin another run in place of this one, bit-equal to that of a new trainer.

        What was recorded is replayed again. Returns False, and this trainer is of no further use,
        if the run needs other models or batches, or these models hold more than their tensors.
        """
        config = pinned(config, has_model=self._factory is not None)
        if self._machine(config) != self._machine(self.config):
            return False
        initial = self._initial(config)
        state = state_of(initial)
        if _shapes_of(state) != _shapes_of(state_of(self.evaluator.model)):
            return False
        for expert, settings in zip(self.experts, config.experts, strict=True):
            expert.begin_anew(settings, config.mixing, state)
            expert.model.train(initial.training)
        models = [initial.to(memory_format=self.experts[0].memory_format)]
        models += [expert.model for expert in self.experts]
        if None in (found := set(map(model_fingerprint, models))) or len(found) > 1:
            return False
        load_state(self.evaluator.model, state)
        self.evaluator.config, self.evaluator.seed = config.evaluation, config.seed
        self._begin(config, self.experts)
        return True

    def _machine(self, config: TrainConfig) -> tuple[object, ...]:
        """What must be equal for models, batches, and what is compiled and recorded to be so."""
        experts = [(expert.name, expert.attack is None) for expert in config.experts]
        precisions = (config.precision, config.evaluation.precision)
        sizes = (config.batch_size, config.n_accumulations, config.device, config.data)
        forms = (config.fold_batchnorm, config.channels_last, config.compile, config.cuda_graph)
        is_recorded = why_not_recorded(config, self.device) is None
        return (config.model, is_recorded, experts, *precisions, *sizes, *forms)

    @property
    def origin(self) -> Origin:
        """The fingerprints of training images and initial model, the batches and the device."""
        return Origin(
            data=self._data_fingerprint,
            model=self._model_fingerprint,
            n_batches=self._n_batches,
            device_kind=self.device.type,
            precision=self.precision,
        )

    @functools.cached_property
    def _data_fingerprint(self) -> str:
        return split_fingerprint(self.train_split)

    @functools.cached_property
    def _images(self) -> str:
        """The digest of the images that are trained and judged on."""
        return images_digest(self.train_split, self.evaluator.split)

    @property
    def replays(self) -> bool:
        """Whether steps are replays of a recorded one by now."""
        return self._recordings.replays

    @property
    def n_images_per_epoch(self) -> int:
        """The number of images in whole batches."""
        return self._n_batches * min(self.config.batch_size, len(self.train_split))

    @property
    def global_learner(self) -> Weights:
        """The averaged mixture; before the first sync, the sum of the experts' contributions."""
        if self._global is not None:
            return self._global.weights
        is_constant = ratio_is_constant(self.config)
        weights = self.config.weights_at(0) if is_constant else [1.0] * len(self.experts)
        return mix([expert.contribution.weights for expert in self.experts], weights)

    def judge(self, learner: str, *, attacked: bool) -> Mapping[str, float]:
        """The accuracies of the average of the expert of that name, or of the global learner."""
        is_global = learner == "global"
        weights = self.global_learner if is_global else self.expert(learner).average.weights
        n_images = self.n_images_during_training
        return self._counted(self.evaluator.judge(weights, n_images=n_images, attacked=attacked))

    def judge_released(self, released: Released) -> Mapping[str, float]:
        """The accuracies of a mixture or the global learner, on the images for such points."""
        return self._counted(self.evaluator.judge(self.released(released), n_images=self.n_images))

    def _counted(self, judgement: Judgement) -> Mapping[str, float]:
        self.forward_images += judgement.forward_images
        return judgement.accuracies

    def mixture(self, ratio: Ratio) -> Weights:
        """The experts' averages of `release_epoch`, mixed by `ratio`."""
        return mix(self._averages(), as_weights(ratio, len(self.experts)))

    def released(self, released: Released) -> Weights:
        """The weights of a mixture, or the global learner of `release_epoch`."""
        if released != GLOBAL:
            return self.mixture(released)
        if self.release_epoch == self.epoch:
            return self.global_learner
        assert self.best.global_learner is not None  # as `releases_global` says
        return self.best.global_learner

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """Each expert's average as a state dict: from these any mixture can be made again.

        The global learner, which cannot, stands under `global` if `releases_global`.
        """
        pairs = zip(self.experts, self._averages(), strict=True)
        states = {expert.config.name: named(expert.model, average) for expert, average in pairs}
        if self.releases_global:
            states[GLOBAL] = named(self.experts[0].model, self.released(GLOBAL))
        return states

    def _averages(self) -> list[Weights]:
        if self.release_epoch < self.epoch:
            return self.best.averages
        return [expert.average.weights for expert in self.experts]

    def state_dict(self) -> dict[str, Any]:
        """Everything that training needs to go on, loadable with `weights_only=True`."""
        experts = {expert.config.name: expert.state_dict() for expert in self.experts}
        if self._global is not None:  # it has taken the place of the contributions
            experts = {name: {**state, "contribution": None} for name, state in experts.items()}
        return {
            "config": to_dict(self.config),
            "images": self._images,
            "epoch": self.epoch,
            "forward_images": self.forward_images,
            "experts": experts,
            "global": self._global.state_dict() if self._global is not None else None,
            "best": self.best.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit-equal on the CPU to never having stopped.

        Raises:
            InvalidConfigError: the state is of another configuration, or of other images.
        """
        saved, own = to_dict(from_dict(state["config"], TrainConfig)), to_dict(self.config)
        if saved != own:
            names = sorted(name for name in own | saved if own.get(name) != saved.get(name))
            raise InvalidConfigError(
                "The checkpoint must be of this configuration, but differs in "
                f"{', '.join(names)}. Its own is under 'config' in it."
            )
        if state.get("images") != self._images:
            raise InvalidConfigError(
                "The checkpoint must be of these train and validation images, but is of others: "
                f"their digest is {self._images}, and its own {state.get('images')}. Give the "
                "images that it was trained on, or begin anew in another folder."
            )
        for expert in self.experts:
            expert.load_state_dict(state["experts"][expert.config.name])
        self.forward_images = state["forward_images"]
        self.best.load_state_dict(state["best"])
        self._global = None
        if state["global"] is not None:
            self._global = self._learner_of(self.experts[0].weights)
            self._global.load_state_dict(state["global"])

    def learn(
        self,
        experts: Sequence[Expert],
        batches: Iterable[Batch] | None,
        noises: Sequence[Noise] | None,
    ) -> list[float]:
        """Train experts for their next epoch, with the sync that is due; their mean losses."""
        epoch = experts[0].epoch
        if self._global is None and epoch >= self.config.sync.start_epoch:
            self._begin_cotraining()
        synced = self.config.sync.is_sync(epoch)
        if synced and self.config.sync.at == "boundary":
            self._sync()
        for expert in experts:
            expert.begin_epoch()
        syncs = synced and self.config.sync.at == "every_step"
        n_known = 1 if syncs and self.config.sync.restart_averages else self._n_batches
        cost = sum(update_cost(expert.config) for expert in experts)
        losses, batches = [], self.batches(epoch) if batches is None else batches
        noises = noises or [self._noise(expert) for expert in experts]
        with training_precision(self.precision):
            for step, (x, y) in enumerate(batches):
                if step % n_known == 0:
                    numbers = self._numbers(experts, range(step, step + n_known))
                    do = self._step_with(numbers, experts)
                losses.append(do(step, x, y, noises))
                self._count_step(experts)
                self.forward_images += cost * len(x)
                if syncs:
                    self._sync()
        for expert in experts:
            own = of_expert(numbers.at(step), expert.config.name)
            expert.set_rates(own["lr"], own["weight_decay"])
        return _checked(experts, torch.stack(losses).mean(0).tolist())

    def _count_step(self, experts: Sequence[Expert]) -> None:
        for expert in experts:
            expert.average.n_updates += 1
            expert.contribution.n_updates += self._global is None
        if self._global is not None:
            self._global.n_updates += 1

    def _numbers(self, experts: Sequence[Expert], steps: range) -> StepNumbers:
        """The rates, weights and radii of these steps of an epoch, by expert and name."""
        epoch, n, columns = experts[0].epoch, len(steps), dict[str, list[float]]()
        for expert in experts:
            config, own = expert.config, expert.numbers(n)
            scale = functools.partial(rate_factor, self.config, config, epoch)
            own["lr"] = [config.optimizer.lr * scale(step, self._n_batches) for step in steps]
            if self._global is None:
                own["contribution"] = expert.contribution.rates(n)
            columns |= {f"{config.name}/{name}": column for name, column in own.items()}
        if self._global is None:
            weights = self._contribution_weights[epoch]
        else:
            weights = self.config.weights_at(epoch)
            columns["global"] = self._global.rates(n)
        for expert, weight in zip(self.experts, weights, strict=True):
            columns[f"{expert.config.name}/weight"] = [weight] * n
        return StepNumbers(first=steps.start, columns=columns)

    def _step_with(self, numbers: StepNumbers, experts: Sequence[Expert]) -> Step:
        """A step of these experts, recorded if it can be."""
        update = functools.partial(self._update, experts)
        if self._why_not_recorded is not None:
            return lambda step, x, y, noises: update(step, x, y, noises, numbers.at(step))

        def tensors() -> list[Tensor]:
            learner = [] if self._global is None else self._global.weights
            return [tensor for expert in experts for tensor in expert.tensors] + learner

        phase = (self._global is None, self.config.mixing.source)
        return self._recordings.replaying(
            update,
            numbers,
            (phase, *(expert.form for expert in experts)),
            device=self.device,
            tensors=tensors,
            record=self.record,
        )

    def _update(
        self,
        experts: Sequence[Expert],
        step: int | None,
        x: Tensor,
        y: Tensor,
        noises: Sequence[Noise],
        numbers: Mapping[str, Number],
    ) -> Tensor:
        """A step that counts nothing; its number seeds what the models draw."""

        def update(expert: Expert, noise: Noise) -> Tensor:
            with self._seeded(expert, step):
                return expert.update(x, y, noise, of_expert(numbers, expert.config.name))

        pairs = zip(experts, noises, strict=True)
        losses = side_by_side([functools.partial(update, *pair) for pair in pairs])
        weights = [numbers[f"{expert.config.name}/weight"] for expert in self.experts]
        if self._global is not None:
            sources = [expert.source for expert in self.experts]
            self._global.approach(mix(sources, weights), numbers["global"])
            return torch.stack(losses)
        for expert, weight in zip(self.experts, weights, strict=True):
            if expert in experts:
                rate = numbers[f"{expert.config.name}/contribution"]
                expert.update_contribution(weight, rate)
        return torch.stack(losses)

    def _seeded(self, expert: Expert, step: int | None) -> contextlib.AbstractContextManager[None]:
        if step is None:
            return contextlib.nullcontext()
        purpose = ("model", expert.epoch, step, expert.config.name)
        return global_seed(derive_seed(self.config.seed, *purpose), self.device)

    def _begin_cotraining(self) -> None:
        """From the first sync on the global learner is one average, not a sum of contributions.

        Experts that were not trained before begin as that learner.
        """
        learner = self._learner_of(self.global_learner)
        learner.n_updates = max(expert.contribution.n_updates for expert in self.experts)
        for expert in self.experts:
            if expert.config.name in self.discarded:
                expert.restart(learner)
            if expert.config.rests:
                expert.rest(keeps_places=self._why_not_recorded is None)
        self._global = learner

    def _learner_of(self, weights: Weights) -> Average:
        """The average that is the global learner, which stays in its place from run to run."""
        self._learner.config = self.config.mixing
        self._learner.restart(weights)
        return self._learner

    def _sync(self) -> None:
        """Every expert that does not rest restarts from the global learner."""
        learner, sync = self.global_learner, self.config.sync
        for expert in self.experts:
            if self.rests(expert):
                continue
            expert.overwrite(learner)
            if sync.restart_momentum:
                expert.forget_momentum()
            if sync.restart_averages:
                expert.average.restart(learner)

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

    def _noise(self, expert: Expert) -> Noise:
        """One stream per expert and epoch, so that none depends on another's history."""
        purpose = ("noise", expert.epoch, expert.config.name)
        return GeneratorNoise(generator(self.device, self.config.seed, *purpose))


def _shapes_of(state: Mapping[str, Any]) -> dict[str, object]:
    return {name: getattr(value, "shape", None) for name, value in state.items()}


def _checked(experts: Sequence[Expert], losses: list[float]) -> list[float]:
    """The losses, if they and the weights are finite."""
    for expert, loss in zip(experts, losses, strict=True):
        if not (math.isfinite(loss) and all_finite(expert.weights)):
            raise DivergedError(
                f"Expert {expert.config.name!r} diverged in epoch {expert.epoch}, loss {loss}."
            )
    return losses
