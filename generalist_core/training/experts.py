"""An expert in training: its model, optimizer, average and contribution to the global learner."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.attacks.gradient import drawn, perturb
from generalist_core.config import (
    Attack,
    CutMix,
    ExpertConfig,
    Loss,
    MixingConfig,
    MixUp,
    SeveralAttacks,
    TrainConfig,
)
from generalist_core.config.attacks import DRAWN
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory, Shape, build_model, why_no_logits
from generalist_core.models.state import BufferPlaces, copied, load_state, moved, state_of
from generalist_core.models.state_check import freeze, require_sound_state, require_trainable
from generalist_core.models.weights import load_initial
from generalist_core.randomness import Noise, derive_seed, global_seed, noise_of_parts
from generalist_core.recording.numbers import Number, live_numbers, with_live
from generalist_core.training.averaging import Average, mix, names_of, overwrite, weights_of
from generalist_core.training.forward import forwards_of
from generalist_core.training.losses import training_loss
from generalist_core.training.optimizers import (
    build_optimizer,
    decay_weights,
    fixed_settings,
    load_optimizer,
)
from generalist_core.validation import InvalidConfigError

if TYPE_CHECKING:
    from torchvision.transforms import v2

ERROR_DECAY = 0.9
"""What the running average of an error keeps of itself when its attack is drawn again."""


class Expert:
    """One base learner. Nothing in it depends on another expert until a sync overwrites it.

    `contribution` is the expert's part of the global learner before the first sync: an average of
    `relative_weight * source`, so that the global learner is the sum of all contributions, each of
    which depends on one expert alone. `epoch` is the number of epochs it was trained for, and
    `adopted_cost` what those that were trained elsewhere would have cost, in forward images per
    training image. Of its `settings`, `config` is what the last epoch begun trained with. `errors`
    are the running averages of its errors under each of several attacks, if these are drawn by
    them.
    """

    def __init__(
        self,
        config: ExpertConfig,
        model: nn.Module,
        run: TrainConfig,
        *,
        n_classes: int,
        shape: Shape,
    ) -> None:
        """Take over `model` of images (c, h, w); of `run`, averaging and how to step matter."""
        self.n_classes = n_classes
        self.memory_format = torch.channels_last if run.channels_last else torch.preserve_format
        self.n_accumulations = run.n_accumulations
        self.model = model.to(memory_format=self.memory_format)
        self.forwards = forwards_of(model, run, shape, is_attacked=config.attack is not None)
        self.optimizer = build_optimizer(config.at(0).optimizer, model.parameters())
        self.weights = weights_of(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        frozen = {name for name, tensor in parameters.items() if not tensor.requires_grad}
        self._is_frozen = [name in frozen for name in names_of(model)]
        self._buffers = BufferPlaces(model)
        self._put_aside: dict[Tensor, Any] = {}
        self.average = Average(self.weights, run.mixing)
        self.contribution = Average(self.weights, run.mixing)
        self._begin(config, run.mixing)

    def _begin(self, config: ExpertConfig, mixing: MixingConfig) -> None:
        """What a run begins with, apart from its tensors."""
        self.settings, self.mixing = config, mixing
        self.config = config.at(0)
        self.augment = _batch_augmentation(config.batch_augmentation, self.n_classes)
        self.errors = _first_errors(self.config.attack)
        self.epoch = 0
        self.adopted_cost = 0

    def begin_anew(
        self, config: ExpertConfig, mixing: MixingConfig, state: Mapping[str, Tensor]
    ) -> None:
        """Begin another run, whose model begins with `state`; all tensors keep their places."""
        before = fixed_settings(self.config.optimizer)
        self._begin(config, mixing)
        self._buffers.restore()  # a step may have been cut off
        load_state(self.model, state)
        fresh = build_optimizer(self.config.optimizer, self.model.parameters())
        if before == fixed_settings(self.config.optimizer):
            self.optimizer.state.update(self._put_aside)
            self._set_optimizer(fresh)
            self.forget_momentum()
        else:
            self.optimizer = fresh
        self._put_aside.clear()
        for average in (self.average, self.contribution):
            average.config = mixing
            average.restart(self.weights)

    @property
    def source(self) -> list[Tensor]:
        """The weights that enter the mixture: the average, or the expert's weights themselves."""
        return self.average.weights if self.mixing.source == "averages" else self.weights

    def begin_epoch(self) -> None:
        """Take on the settings of this epoch."""
        self.config = self.settings.at(self.epoch)
        if self.settings.earlier:  # a state that was loaded may hold those of another epoch
            self._set_optimizer(build_optimizer(self.config.optimizer, self.model.parameters()))

    def _set_optimizer(self, like: torch.optim.Optimizer) -> None:
        """Give the optimizer the numbers of another one of its kind; it keeps its state."""
        for group, new in zip(self.optimizer.param_groups, like.param_groups, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})

    def numbers(self, n: int) -> dict[str, list[float]]:
        """What the next `n` updates compute with, by name, apart from the learning rate."""
        config = self.config
        constant = {
            "weight_decay": config.optimizer.weight_decay,
            **live_numbers(config.attack, "attack"),
            **live_numbers(config.loss, "loss"),
        }
        columns = {name: [value] * n for name, value in constant.items()}
        return {"average": self.average.rates(n), **columns}

    @property
    def form(self) -> tuple[object, ...]:
        """What must be equal for updates to be the same functions of the batch and `numbers`."""
        config = self.config
        none = dict.fromkeys(self.numbers(0), 0.0)
        return (
            config.name,
            with_live(config.attack, "attack", none),
            with_live(config.loss, "loss", none),
            fixed_settings(config.optimizer),
            config.label_smoothing,
            config.max_gradient_norm,
        )

    def update(self, x: Tensor, y: Tensor, noise: Noise, numbers: Mapping[str, Number]) -> Tensor:
        """One update on a batch with the `numbers` and a learning rate `lr`; the mean loss.

        All that it changes are tensors in their places, so that it can be recorded; it counts
        nothing. The loss is a tensor without gradient, left on the device so that nothing waits.
        """
        x = x.to(memory_format=self.memory_format)
        if self.augment is not None:
            x, y = self.augment(x, y)
        x_adv = self.craft(x, y, noise, numbers)
        x, y = (self._repeated(tensor, len(x_adv) // len(x)) for tensor in (x, y))
        self.model.train()
        self.optimizer.zero_grad()
        loss = self._backward(x, x_adv, y, with_live(self.config.loss, "loss", numbers))
        if self.config.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        self.set_rates(numbers["lr"], numbers["weight_decay"])
        self.optimizer.step()
        self.average.approach(self.weights, numbers["average"])
        return loss

    def craft(self, x: Tensor, y: Tensor, noise: Noise, numbers: Mapping[str, Number]) -> Tensor:
        """The images that this expert's attack makes of `x`; `x` itself if it has no attack.

        An average over several attacks gives as many for each image, part by part.
        """
        if self.config.attack is None:
            return x
        attack, n = with_live(self.config.attack, "attack", numbers), self.n_accumulations
        self.model.eval()
        if self.forwards.folded is not None:
            self.forwards.folded.refresh()
        images, labels = x.chunk(n), y.chunk(n)
        noises = noise_of_parts(noise, [len(part) for part in images])
        which = 0
        if isinstance(attack, SeveralAttacks) and attack.combine in DRAWN:
            which = drawn(attack, x, noise, self.errors)
            attack = attack.parts[which]
        parts = zip(images, labels, noises, strict=True)
        crafted = [perturb(attack, self.forwards.of_images, *part) for part in parts]
        if self.errors:
            error = self._error(crafted, labels)
            self.errors[which] = ERROR_DECAY * self.errors[which] + (1 - ERROR_DECAY) * error
        return torch.cat(crafted)

    @torch.no_grad()
    def _error(self, crafted: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
        """The fraction of the adversarial images that are classified wrongly.

        Of a mixed label, the part of the other class counts as wrong.
        """
        right = []
        for x, y in zip(crafted, labels, strict=True):
            logits = self.forwards.of_images(x)
            parts = y if y.ndim == 2 else F.one_hot(y, logits.shape[1])
            right.append(parts.gather(1, logits.argmax(1, keepdim=True)))
        return (1 - torch.cat(right).double()).mean().item()

    def _repeated(self, batch: Tensor, n_times: int) -> Tensor:
        """The images or labels that belong to those of `craft`."""
        if n_times == 1:
            return batch
        return torch.cat(
            [p for part in batch.chunk(self.n_accumulations) for p in [part] * n_times]
        )

    def _backward(self, x: Tensor, x_adv: Tensor, y: Tensor, minimised: Loss) -> Tensor:
        """The mean loss of the batch, whose gradient the parameters are given part by part."""
        of_weights, losses = self.forwards.of_weights, []
        for part in zip(
            *(tensor.chunk(self.n_accumulations) for tensor in (x, x_adv, y)), strict=True
        ):
            smoothing = self.config.label_smoothing
            mean = training_loss(minimised, of_weights, *part, label_smoothing=smoothing)
            loss = mean * (len(part[0]) / len(x))
            torch.autograd.backward(loss)
            self._buffers.restore()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def update_contribution(self, relative_weight: Number, rate: Number) -> None:
        """Go this part of the way to this step's part of the global learner."""
        self.contribution.approach(mix([self.source], [relative_weight]), rate)

    def set_rates(self, lr: Number, weight_decay: Number) -> None:
        """Give the optimizer its learning rate and weight decay.

        Tensors let the step be recorded.
        """
        if isinstance(weight_decay, Tensor):
            assert isinstance(lr, Tensor)
            decay_weights(self.optimizer, lr, weight_decay)
            weight_decay = 0.0
        for group in self.optimizer.param_groups:
            group |= {"lr": lr, "weight_decay": weight_decay}
            if "capturable" in group:
                group["capturable"] = isinstance(lr, Tensor) and lr.is_cuda

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that a step changes, in their places."""
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [
            *(tensor.detach() for tensor in self.model.parameters()),
            *self.model.buffers(),
            *(value for value in kept if isinstance(value, Tensor)),
            *self.average.weights,
            *self.contribution.weights,
        ]

    @torch.no_grad()
    def forget_momentum(self) -> None:
        """The optimizer begins anew: zeros are what its first step begins with."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def rest(self, *, keeps_places: bool) -> None:
        """Make no further step: what the optimizer keeps can only be of use to another run."""
        if keeps_places:
            self._put_aside.update(self.optimizer.state)
        self.optimizer.state.clear()

    def overwrite(self, weights: Sequence[Tensor]) -> None:
        """Continue from these weights; the optimizer and the average are kept.

        Frozen parameters stay to the bit, as mixtures of equal weights are equal up to rounding.
        """
        both = zip(self._is_frozen, self.weights, weights, strict=True)
        overwrite(self.model, [own if frozen else new for frozen, own, new in both])

    def restart(self, learner: Average) -> None:
        """Take over a global learner's weights, as weights and as average, and its age."""
        self.overwrite(learner.weights)
        self.average.restart(learner.weights)
        self.average.n_updates = learner.n_updates

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and numbers."""
        return {
            "epoch": self.epoch,
            "adopted_cost": self.adopted_cost,
            "errors": list(self.errors),
            "model": state_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "contribution": self.contribution.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, which has no contribution in co-training."""
        self.epoch, self.adopted_cost = state["epoch"], state["adopted_cost"]
        self.errors = list(state.get("errors", self.errors))
        load_state(self.model, state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.average.load_state_dict(state["average"])
        if state["contribution"] is not None:
            self.contribution.load_state_dict(state["contribution"])


def initial_model(config: TrainConfig, data: Dataset, factory: ModelFactory | None) -> nn.Module:
    """The model that all experts begin as, and a check that it fits the data.

    Raises:
        InvalidConfigError: there is no such model, or it does not give one logit per class, or it
            gives probabilities, or cannot be trained or averaged, or the weights to begin from are
            not its own, or a pattern of frozen parameters fits none.
    """
    if factory is None:
        initial = build_model(config.model, data.n_classes, data.shape, seed=config.seed)
    else:
        with global_seed(derive_seed(config.seed, "init"), torch.device("cpu")):
            initial = factory(data.n_classes, data.shape)
    if not isinstance(initial, nn.Module):
        raise InvalidConfigError(
            f"The model must be a torch.nn.Module, but got {type(initial).__name__}."
        )
    require_trainable(initial)
    # the factory may have returned a model of the caller's, which must stay as it is
    initial = moved(copied(initial), torch.device("cpu"), torch.float32)
    if config.model.init is not None:
        load_initial(initial, Path(config.model.init), config.model.init_digest)
    with torch.no_grad():
        logits = copy.deepcopy(initial).eval()(torch.zeros(1, *data.shape))
    expected = (1, data.n_classes)
    if tuple(logits.shape) != expected:
        raise InvalidConfigError(
            f"The model must give one image logits of shape {expected}, but got "
            f"{tuple(logits.shape)}.{_cure(logits)}"
        )
    if reason := why_no_logits(logits):
        raise InvalidConfigError(reason)
    require_sound_state(initial, data.shape)
    freeze(initial, config.model.frozen)
    return initial


def _cure(logits: Tensor) -> str:
    is_single = logits.numel() == 1
    return " Give a single logit z as the two logits (0, z)." if is_single else ""


def _first_errors(attack: Attack | None) -> list[float]:
    """All are 1, as if nothing withstood; none if no attack is drawn by its errors."""
    if isinstance(attack, SeveralAttacks) and attack.combine == "adaptive":
        return [1.0] * len(attack.parts)
    return []


def _batch_augmentation(config: MixUp | CutMix | None, n_classes: int) -> v2.Transform | None:
    if config is None:
        return None
    from torchvision.transforms import v2

    match config:
        case MixUp():
            return v2.MixUp(alpha=config.alpha, num_classes=n_classes)
        case CutMix():
            return v2.CutMix(alpha=config.alpha, num_classes=n_classes)
