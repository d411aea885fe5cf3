"""The configuration of an expert, and of a whole training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from generalist_core.config.attacks import (
    PGD,
    Attack,
    CustomAttack,
    MultiTargeted,
    SeveralAttacks,
)
from generalist_core.config.data import DataConfig, ModelConfig
from generalist_core.config.evaluation import EvaluationConfig
from generalist_core.config.fields import BelowOne, NotNegative, Positive, with_checked_fields
from generalist_core.config.losses import MART, CrossEntropy, CustomLoss, CutMix, Loss, MixUp
from generalist_core.config.mixing import MixingConfig, Ratio, SyncConfig, as_weights
from generalist_core.config.optimizers import SGD, Optimizer, RMSprop
from generalist_core.config.schedules import Constant, Schedule
from generalist_core.validation import InvalidConfigError, require


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class EarlierSettings:
    """What an expert trained with up to epoch `until`, when other settings took over."""

    until: Positive[int]
    attack: Attack | None = None
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimizer = field(default_factory=SGD)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class ExpertConfig:
    """One base learner: its task (natural images or an attack), loss, optimizer and schedule.

    One that `rests` is trained up to the first sync only. From then on syncs do not change it, and
    it enters mixtures as it is.

    `batch_augmentation` mixes the images of a batch and their labels first. The attack begins at
    the mixed image, stays in the ball around it, and maximises the loss for the mixed label: its
    cross-entropy is the mean of that for each label, weighted by the label's part.

    In the first `lr_warmup_epochs` of the run, which may be a fraction, the learning rate of the
    schedule is scaled by a line through the steps that reaches 1 at the last one: by 1/n, 2/n, ...,
    1 (Goyal et al. 2017). With `max_gradient_norm` the gradient of all parameters together is
    scaled down before each step to that Euclidean norm, if it is longer (Pascanu et al. 2013).

    `earlier` are the settings of former epochs, in their order. An expert whose settings changed
    while it was trained, as in population-based training (Jaderberg et al. 2017, arXiv 1711.09846),
    is so the same expert if it is trained anew. The optimizer keeps its state.
    """

    name: str
    attack: Attack | None = None
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Constant)
    lr_warmup_epochs: NotNegative[float] = 0.0
    max_gradient_norm: Positive[float] | None = None
    label_smoothing: BelowOne = 0.0
    batch_augmentation: MixUp | CutMix | None = None
    rests: bool = False
    earlier: tuple[EarlierSettings, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name == "global":
            raise InvalidConfigError(
                "The name of an expert must be an identifier other than 'global', but got "
                f"name={self.name!r}."
            )
        if isinstance(self.loss, CustomLoss) and self.label_smoothing > 0:
            raise InvalidConfigError(
                "`label_smoothing` must be 0 with a custom loss, but got "
                f"label_smoothing={self.label_smoothing} for expert {self.name!r}. Smooth the "
                "labels in the loss."
            )
        if self.attack is None and not isinstance(self.loss, CrossEntropy | CustomLoss):
            raise InvalidConfigError(
                "TRADES and MART must have an attack, but got "
                f"attack=None for expert {self.name!r}."
            )
        if isinstance(self.attack, MultiTargeted):
            raise InvalidConfigError(
                "The attack of an expert must be one for training, but got "
                f"{self.attack} for expert {self.name!r}. Train on PGD; evaluate under this."
            )
        if self.batch_augmentation is not None and (part := self._part_of_one_label()) is not None:
            raise InvalidConfigError(
                "`batch_augmentation` must be None with a loss or attack that needs one label for "
                f"each image, but got batch_augmentation={self.batch_augmentation} and {part} for "
                f"expert {self.name!r}. Use CrossEntropy, TRADES or a custom loss, and an attack "
                "on the cross-entropy or on kl."
            )
        self._check_earlier()

    def at(self, epoch: int) -> ExpertConfig:
        """The expert as it trains in `epoch`, without settings of other epochs."""
        if not self.earlier:
            return self
        past = next((past for past in self.earlier if epoch < past.until), None)
        now = past or self
        return replace(self, attack=now.attack, loss=now.loss, optimizer=now.optimizer, earlier=())

    def mapped(
        self,
        attack: Callable[[Attack | None], Attack | None],
        loss: Callable[[Loss], Loss] = lambda loss: loss,
    ) -> ExpertConfig:
        """The expert whose attack and loss, at all times, are what these functions make of them."""
        earlier = tuple(
            replace(past, attack=attack(past.attack), loss=loss(past.loss)) for past in self.earlier
        )
        return replace(self, attack=attack(self.attack), loss=loss(self.loss), earlier=earlier)

    def _check_earlier(self) -> None:
        """Check that the epochs grow, and that the state of the expert suits all its settings."""
        ends = [past.until for past in self.earlier]
        if sorted(set(ends)) != ends:
            raise InvalidConfigError(
                f"The epochs of `earlier` settings must grow, but got until={ends} for expert "
                f"{self.name!r}."
            )
        for past in self.earlier:
            self.at(past.until - 1)
            pairs = ((past.attack, self.attack), (past.loss, self.loss))
            fixed = (SeveralAttacks, CustomAttack, CustomLoss)
            differs = [
                type(past.optimizer) is not type(self.optimizer),
                type(past.attack) is not type(self.attack),
                *(a != b and any(isinstance(part, fixed) for part in (a, b)) for a, b in pairs),
                _has_momentum(past.optimizer) != _has_momentum(self.optimizer),
            ]
            if any(differs):
                raise InvalidConfigError(
                    "`earlier` settings must have the kinds of optimizer and attack of the later "
                    "ones, RMSprop with momentum or without, and the same custom or combined "
                    "parts, but got "
                    f"{past} for expert {self.name!r}. Train it anew with these settings."
                )

    def _part_of_one_label(self) -> object:
        """The loss or attack that is not defined for images of which two labels are true."""
        attacks = self.attack.parts if isinstance(self.attack, SeveralAttacks) else (self.attack,)
        for part in (self.loss, *attacks):
            if isinstance(part, MART | CustomAttack):
                return part
            if isinstance(part, PGD) and part.loss == "margin":
                return part
        return None


def _has_momentum(optimizer: Optimizer) -> bool:
    """Whether it is an RMSprop whose state has a momentum: torch makes it in the first step."""
    return isinstance(optimizer, RMSprop) and optimizer.momentum > 0


Precision = Literal["auto", "float32", "float64", "tfloat32", "tfloat32-convolutions", "bfloat16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

MAX_EPOCHS = 10**6
"""Far beyond any training; schedules and syncs are looked through epoch by epoch."""


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class TrainConfig:
    """One training run of Generalist (Wang & Wang 2023; with more experts, Generalist++, 2025).

    `precision` is the precision of training; models are evaluated in float32 (in float64 if
    `precision` is `float64`), except as `evaluation.precision` says. With `tfloat32`, GPUs multiply
    in TF32, and other devices in float32; with `tfloat32-convolutions`, torch's default, only the
    convolutions. With `bfloat16`, layers compute in bfloat16, while weights, images and logits stay
    float32. `auto` is `bfloat16` on GPUs that have it, and `float32` elsewhere.

    `fold_batchnorm` folds BatchNorm into the convolutions while adversarial images are crafted and
    models are evaluated; `channels_last` keeps images and weights in that memory format. Both are
    exact up to rounding. A step works through its batch in `n_accumulations` parts and adds their
    gradients up, which divides the memory needed by about that number. This is exact too, except
    for BatchNorm, whose statistics are then those of a part. `compile` lets torch compile the
    forwards of training and of the attack, which takes time at the start and changes rounding. With
    `cuda_graph` a GPU records a step of all experts once and replays it, see
    `generalist_core.recording.steps`; what cannot be recorded runs as it is.

    What is constant within an epoch (the mixing ratio, and schedules without `per_step`) has its
    value at the `start` of the epoch, or at its `end`: as in the official code, which numbers
    epochs from 1, so that the last epoch has the last value.
    """

    experts: tuple[ExpertConfig, ...]
    evaluation: EvaluationConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    epochs: Positive[int] = 120
    batch_size: Positive[int] = 128
    seed: int = 0
    precision: Precision = "float32"
    fold_batchnorm: bool = False
    channels_last: bool = False
    n_accumulations: int = 1
    compile: bool = False
    cuda_graph: bool = False
    device: str = "auto"
    epoch_progress: Literal["start", "end"] = "start"

    def __post_init__(self) -> None:
        names = [expert.name for expert in self.experts]
        if len(names) < 2:
            raise InvalidConfigError(
                f"There must be two or more experts, but got experts={names}. Generalist mixes "
                "experts; add a natural or a robust one."
            )
        if len(set(names)) < len(names):
            raise InvalidConfigError(f"Experts must have different names, but got {names}.")
        if all(expert.rests for expert in self.experts):
            raise InvalidConfigError(
                "An expert must be trained from the first sync on, but all of them rest. Set "
                "`rests` to false for one."
            )
        resting = [expert.name for expert in self.experts if expert.rests]
        if resting and self.sync.start_epoch == 0:
            raise InvalidConfigError(
                "An expert that rests must have epochs before the first sync, but got "
                f"start_epoch=0 and {', '.join(resting)} would never be trained."
            )
        for ratio in (*self.mixing.ratio.values, *self.evaluation.release_ratios):
            as_weights(ratio, len(names))
        require(self.epochs <= MAX_EPOCHS, f"epochs <= {MAX_EPOCHS}", f"epochs={self.epochs}")
        require(
            1 <= self.n_accumulations <= self.batch_size,
            "1 <= n_accumulations <= batch_size",
            f"n_accumulations={self.n_accumulations}, batch_size={self.batch_size}",
            "A part of a batch has at least one image.",
        )
        require(
            self.sync.start_epoch < self.epochs,
            "sync.start_epoch < epochs",
            f"start_epoch={self.sync.start_epoch}, epochs={self.epochs}",
            "Without a sync the experts would never restart from the mixture.",
        )
        for expert in self.experts:
            if expert.earlier and expert.earlier[-1].until >= self.epochs:
                raise InvalidConfigError(
                    "`earlier` settings must end before the last epoch, but got until="
                    f"{expert.earlier[-1].until} for expert {expert.name!r} and "
                    f"epochs={self.epochs}. Train for longer, or leave them out."
                )

    @property
    def cotraining_epochs(self) -> int:
        """The number of epochs from the first sync on."""
        return self.epochs - self.sync.start_epoch

    @property
    def lineage(self) -> str:
        """The name of the expert that has all the weight at the start; empty if none has."""
        weights = as_weights(self.mixing.ratio.values[0], len(self.experts))
        return self.experts[weights.index(1.0)].name if 1.0 in weights else ""

    @property
    def global_ratio(self) -> Ratio | None:
        """The ratio at which the experts' averages mix to the global learner; None if at none.

        Averages are linear, so it is a constant ratio if the experts' own weights are mixed, and
        all averages go on: no expert rests, and no sync restarts them.
        """
        others_differ = self.sync.restart_averages or any(expert.rests for expert in self.experts)
        ratios = set(self.mixing.ratio.values)
        if self.mixing.source != "experts" or others_differ or len(ratios) > 1:
            return None
        return ratios.pop()

    @property
    def releases_global(self) -> bool:
        """Whether the global learner is to be released, and is no mixture that is anyway."""
        released = self.evaluation.release_ratios
        return self.evaluation.release_global and self.global_ratio not in released

    def weights_at(self, epoch: int) -> tuple[float, ...]:
        """The weight of each expert in the mixture during `epoch`."""
        return self.mixing.ratio.weights(self.progress_in(epoch), len(self.experts))

    def progress_in(self, epoch: int) -> float:
        """The fraction of the run that is done, as all of `epoch` = 0, 1, ... sees it."""
        return (epoch + (self.epoch_progress == "end")) / self.epochs
