"""The configuration of one training run: frozen, validated, with a lossless JSON form.

Nothing here imports torch, so that search spaces and the command line stay light. Accuracies,
images and `epsilon` live in [0, 1]; a run's progress is its share of epochs done, in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from generalist_core.schedules import (
    Constant,
    Cosine,
    OneCycle,
    PiecewiseLinear,
    Schedule,
    locate,
    require_knots,
)
from generalist_core.validation import (
    InvalidConfigError,
    require,
    require_between,
    require_one_of,
    require_positive,
)

__all__ = [
    "FGSM",
    "MART",
    "NFGSM",
    "PGD",
    "SGD",
    "TRADES",
    "Adam",
    "AdamW",
    "Attack",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "CutMix",
    "DataConfig",
    "EvaluationConfig",
    "ExpertConfig",
    "InvalidConfigError",
    "MixUp",
    "MixingConfig",
    "ModelConfig",
    "NamedAttack",
    "Norm",
    "OneCycle",
    "Optimizer",
    "OwnAttack",
    "OwnLoss",
    "PiecewiseLinear",
    "RMSprop",
    "Ratio",
    "RatioSchedule",
    "Schedule",
    "SyncConfig",
    "TrainConfig",
    "as_weights",
]

Norm = Literal["linf", "l2", "l1"]
NORMS = ("linf", "l2", "l1")

Precision = Literal["float32", "float64", "tfloat32", "bfloat16"]
PRECISIONS = ("float32", "float64", "tfloat32", "bfloat16")

Ratio = float | tuple[float, ...]
"""A mixing ratio: with two experts the weight of the second, else one weight an expert."""


def as_weights(ratio: Ratio, n_experts: int) -> tuple[float, ...]:
    """The weight of each expert, in their order: a point on the simplex.

    Raises:
        InvalidConfigError: a number outside [0, 1] or with other than two experts; weights that
            are negative, do not add up to 1, or are not one an expert.
    """
    if isinstance(ratio, int | float):
        require(n_experts == 2, "one weight an expert", f"ratio={ratio} for {n_experts} experts")
        require_between("mixing ratio", ratio, 0, 1)
        return (1.0 - ratio, float(ratio))
    require(len(ratio) == n_experts, "one weight an expert", f"{ratio} for {n_experts} experts")
    require(
        min(ratio) >= 0 and abs(sum(ratio) - 1) < 1e-9, "weights >= 0 that sum to 1", f"{ratio}"
    )
    return tuple(float(weight) for weight in ratio)


# Data and model


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, how they are split, and how training batches are augmented.

    `name` is one of `generalist_core.datasets.DATASETS` or a folder with `train/` and `test/`.
    Validation images are taken from the training images, stratified by label; `split_seed` alone
    decides which, so that runs with other seeds are judged on the same images. `n_train` keeps so
    many of the rest. `image_size` resizes to a square.
    """

    name: str = "digits"
    root: str = "data"
    download: bool = False
    n_validation: int = 500
    n_train: int | None = None
    image_size: int | None = None
    crop_padding: int = 0
    flip: bool = False
    split_seed: int = 0

    def __post_init__(self) -> None:
        require_positive("n_validation", self.n_validation)
        require(self.n_train is None or self.n_train > 0, "n_train > 0", f"n_train={self.n_train}")
        require(
            self.image_size is None or self.image_size > 0,
            "image_size > 0",
            f"image_size={self.image_size}",
        )
        require(self.crop_padding >= 0, "crop_padding >= 0", f"crop_padding={self.crop_padding}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture that all experts share.

    `name` is one of `generalist_core.models.MODELS`, `torchvision:NAME`, or `FILE.py:FUNCTION` or
    `MODULE:FUNCTION` of a callable `(n_classes, input_shape) -> torch.nn.Module`. `width` scales
    the built-in models (their published width if None). With `mean` and `std`, one number a
    channel, the model itself normalises its inputs: attacks always see [0, 1].
    """

    name: str = "convnet"
    width: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require(self.width is None or self.width > 0, "width > 0", f"width={self.width}")
        both = (self.mean is None) == (self.std is None)
        require(both, "mean and std given together", f"mean={self.mean}, std={self.std}")
        if self.mean is not None and self.std is not None:
            fits = len(self.mean) == len(self.std) > 0
            require(fits, "one std a mean", f"mean={self.mean}, std={self.std}")
            require(min(self.std) > 0, "std > 0", f"std={self.std}")


# Attacks


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of length `epsilon` from the image (Goodfellow et al. 2015)."""

    epsilon: float
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class NFGSM:
    """One unprojected step from a noisy image (de Jorge et al. 2022).

    Noise is uniform with radius `noise_scale * epsilon`, and the result is clipped to [0, 1] but
    not to the ball: a training attack, of no use for evaluation.
    """

    epsilon: float
    noise_scale: float = 2.0
    relative_step_size: float = 1.0

    def __post_init__(self) -> None:
        require_ball("linf", self.epsilon)
        require(self.noise_scale >= 0, "noise_scale >= 0", f"noise_scale={self.noise_scale}")
        require_positive("relative_step_size", self.relative_step_size)


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent (Madry et al. 2018) from a uniform start in the ball.

    A step is `relative_step_size * epsilon` long. `momentum` > 0 accumulates gradients normalised
    by their L1 norm (MIM, Dong et al. 2018). `loss` is what is maximised: the cross-entropy, the
    `margin` of Carlini & Wagner (2017), or the KL divergence from the prediction on the clean
    image (TRADES, Zhang et al. 2019).
    """

    epsilon: float
    norm: Norm = "linf"
    steps: int = 10
    relative_step_size: float = 0.25
    random_start: bool = True
    momentum: float = 0.0
    loss: Literal["cross-entropy", "margin", "kl"] = "cross-entropy"

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)
        require_positive("steps", self.steps)
        require_positive("relative_step_size", self.relative_step_size)
        require(self.momentum >= 0, "momentum >= 0", f"momentum={self.momentum}")
        require_one_of("attack loss", self.loss, ("cross-entropy", "margin", "kl"))
        if self.loss == "kl":
            require(
                self.random_start,
                "random_start with loss='kl'",
                "random_start=False",
                "At the clean image the gradient of the divergence is zero.",
            )


@dataclass(frozen=True, kw_only=True)
class OwnAttack:
    """The user's function `FILE.py:FUNCTION` or `MODULE:FUNCTION`, see `generalist_core.own`.

    It must stay in the ball. `forward_images` is the most that an adversarial image may cost: 1 a
    forward, 1 more an input gradient; so much is charged. `source` is the digest of the file, which
    a run fills in when it begins: the function of a changed file is refused.
    """

    function: str
    epsilon: float
    norm: Norm = "linf"
    forward_images: int
    source: str = ""

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)
        require_positive("forward_images", self.forward_images)


Attack = FGSM | NFGSM | PGD | OwnAttack


def require_ball(norm: str, epsilon: float) -> None:
    """Check the norm and the radius of a ball of allowed perturbations."""
    require_one_of("norm", norm, NORMS)
    require(0 <= epsilon < math.inf, "epsilon >= 0", f"epsilon={epsilon}")
    if norm == "linf":
        cure = f"Images live in [0, 1]; did you mean {epsilon:g}/255?"
        require(epsilon <= 1, "epsilon <= 1 for linf", f"epsilon={epsilon}", cure)


# Losses


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy, on adversarial images where the expert has an attack (Madry et al. 2018)."""


@dataclass(frozen=True, kw_only=True)
class TRADES:
    """Cross-entropy on clean images plus `beta` times the divergence on adversarial ones.

    Zhang et al. 2019, equation 5; its attack maximises the same divergence (`PGD(loss="kl")`).
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        require(self.beta >= 0, "beta >= 0", f"beta={self.beta}")


@dataclass(frozen=True, kw_only=True)
class MART:
    """Boosted cross-entropy plus `beta` times a misclassification-weighted divergence.

    Wang et al. 2020, equation 11.
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        require(self.beta >= 0, "beta >= 0", f"beta={self.beta}")


@dataclass(frozen=True, kw_only=True)
class OwnLoss:
    """The user's function `FILE.py:FUNCTION` or `MODULE:FUNCTION`, see `generalist_core.own`.

    `n_forwards` is how often it may pass an image through the model, at the cost of an update each.
    `source` as in `OwnAttack`.
    """

    function: str
    n_forwards: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        require_positive("n_forwards", self.n_forwards)


Loss = CrossEntropy | TRADES | MART | OwnLoss


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """Convex combinations of images and labels (Zhang et al. 2018), by torchvision."""

    alpha: float = 0.2

    def __post_init__(self) -> None:
        require_positive("alpha", self.alpha)


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """Patches of one image pasted into another (Yun et al. 2019), by torchvision."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_positive("alpha", self.alpha)


# Optimizers; `lr` is the level that the schedule scales


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require(0 <= self.momentum < 1, "0 <= momentum < 1", f"momentum={self.momentum}")
        require(not self.nesterov or self.momentum > 0, "momentum > 0 with nesterov", "momentum=0")


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require_betas(self.beta1, self.beta2)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require_betas(self.beta1, self.beta2)


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """RMSprop (Tieleman & Hinton 2012), with momentum."""

    lr: float = 1e-3
    alpha: float = 0.99
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require(0 <= self.alpha < 1, "0 <= alpha < 1", f"alpha={self.alpha}")
        require(0 <= self.momentum < 1, "0 <= momentum < 1", f"momentum={self.momentum}")


Optimizer = SGD | AdamW | Adam | RMSprop


def require_optimizer(lr: float, weight_decay: float) -> None:
    """Check what all optimizers share."""
    require_positive("lr", lr)
    require(weight_decay >= 0, "weight_decay >= 0", f"weight_decay={weight_decay}")


def require_betas(beta1: float, beta2: float) -> None:
    """Check Adam's decay rates."""
    require(0 <= beta1 < 1, "0 <= beta1 < 1", f"beta1={beta1}")
    require(0 <= beta2 < 1, "0 <= beta2 < 1", f"beta2={beta2}")


# The method


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """One base learner: its task (natural images, or an attack), loss, optimizer and schedule."""

    name: str
    attack: Attack | None = None
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Constant)
    label_smoothing: float = 0.0
    mix: MixUp | CutMix | None = None

    def __post_init__(self) -> None:
        fits = self.name.isidentifier() and self.name != "global"
        law = "an expert's name is an identifier other than 'global'"
        require(fits, law, f"name={self.name!r}")
        require(
            0 <= self.label_smoothing < 1,
            "0 <= label_smoothing < 1",
            f"label_smoothing={self.label_smoothing}",
        )
        if isinstance(self.loss, OwnLoss):
            smooths = self.label_smoothing > 0
            got = f"label_smoothing={self.label_smoothing} for expert {self.name!r}"
            require(
                not smooths, "no label smoothing beside an own loss", got, "Smooth in the loss."
            )
        if self.attack is None:
            plain = isinstance(self.loss, CrossEntropy | OwnLoss)
            require(plain, "an attack for TRADES and MART", f"attack=None for expert {self.name!r}")
        else:
            cure = "Mixing images is for natural experts."
            require(self.mix is None, "no mix with an attack", f"mix={self.mix}", cure)


@dataclass(frozen=True, kw_only=True)
class RatioSchedule:
    """The mixing ratio over the run: linear between `values` at `knots`, constant in an epoch."""

    knots: tuple[float, ...] = (0.0, 1.0)
    values: tuple[Ratio, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        require_knots(self.knots, len(self.values))

    def weights(self, progress: float, n_experts: int) -> tuple[float, ...]:
        """The weight of each expert at `progress`."""
        left, share = locate(self.knots, progress)
        start, end = (as_weights(self.values[left + i], n_experts) for i in (0, 1))
        return tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """How experts are averaged over time and mixed into the global learner.

    At update t = 0, 1, ... every average keeps `decay` of itself, or with `decay_warmup`
    min(decay, (t + 1) / (t + 10)). The global learner is such an average too: of the mixture of
    the `experts` (the paper, algorithm 1) or of their `averages` (the official code).
    """

    ratio: RatioSchedule = field(default_factory=RatioSchedule)
    source: Literal["experts", "averages"] = "experts"
    decay: float = 0.999
    decay_warmup: bool = True

    def __post_init__(self) -> None:
        require_one_of("source", self.source, ("experts", "averages"))
        require(0 <= self.decay < 1, "0 <= decay < 1", f"decay={self.decay}")

    def decay_at(self, update: int) -> float:
        """The decay of the average's update number `update` = 0, 1, ..."""
        return min(self.decay, (update + 1) / (update + 10)) if self.decay_warmup else self.decay


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """When experts restart from the global learner: epochs start, start + every, ...

    Epochs count from 0. At the `boundary` means once, before such an epoch begins; at `every_step`
    means after each step of such an epoch (the official code). Momentum and averages survive a
    sync unless they are told to restart. An expert whose weight is 0 in every epoch up to and
    including the first sync loses all it has learned there, but for a rest in its average; with
    `skip_discarded_warmup` it is not trained before, and begins as the global learner.
    """

    start_epoch: int = 75
    every_epochs: int = 5
    at: Literal["boundary", "every_step"] = "boundary"
    restart_momentum: bool = False
    restart_averages: bool = False
    skip_discarded_warmup: bool = True

    def __post_init__(self) -> None:
        require(self.start_epoch >= 0, "start_epoch >= 0", f"start_epoch={self.start_epoch}")
        require_positive("every_epochs", self.every_epochs)
        require_one_of("at", self.at, ("boundary", "every_step"))

    def is_sync(self, epoch: int) -> bool:
        """Whether `epoch` is a sync epoch."""
        since = epoch - self.start_epoch
        return since >= 0 and since % self.every_epochs == 0


@dataclass(frozen=True, kw_only=True)
class NamedAttack:
    """An attack that defines an objective: the accuracy under it."""

    name: str
    attack: Attack

    def __post_init__(self) -> None:
        fits = self.name.isidentifier() and self.name != "natural"
        require(fits, "an objective's name is an identifier other than 'natural'", repr(self.name))
        bounded = not isinstance(self.attack, NFGSM)
        require(bounded, "an evaluation attack stays in its ball", f"{self.attack}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How learners are judged while the search runs.

    Accuracy on natural images and under each of `attacks`. The mixtures of the trained experts are
    judged on the first `n_images` validation images (all if None); every `every_epochs` what is in
    training is judged on the first `n_images_between` (as many if None), which need not be exact.

    Released are the mixtures at `release_ratios`, and with two experts up to `n_refinements` more,
    each halfway between the two neighbours with the most room for a front between them. They are of
    the `best` evaluated boundary (see `generalist_core.best_boundary`), or always of the `last`.
    """

    attacks: tuple[NamedAttack, ...]
    every_epochs: int = 10
    n_images: int | None = None
    n_images_between: int | None = None
    batch_size: int = 256
    release_ratios: tuple[Ratio, ...] = (0.0, 0.5, 1.0)
    n_refinements: int = 3
    release: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        require(len(names) > 0, "at least one evaluation attack", "none")
        require(len(set(names)) == len(names), "objectives of different names", f"{names}")
        require_positive("every_epochs", self.every_epochs)
        for name in ("n_images", "n_images_between"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} > 0", f"{value}")
        require(self.n_refinements >= 0, "n_refinements >= 0", f"{self.n_refinements}")
        require_positive("batch_size", self.batch_size)
        require_one_of("release", self.release, ("best", "last"))
        require(len(self.release_ratios) > 0, "at least one release ratio", "none")

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives: `natural`, then one an attack."""
        return ("natural", *(attack.name for attack in self.attacks))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of Generalist (Wang & Wang 2023; with more experts, Generalist++, 2025).

    `precision` is that of training; models are judged in float32 (float64 if that is asked for).
    With `tfloat32` GPUs multiply in TF32, elsewhere it is float32; with `bfloat16` layers compute
    in that, while weights, images and logits stay float32.

    `fold_batchnorm` folds BatchNorm into the convolutions while adversarial images are crafted and
    models judged; `channels_last` keeps images and weights in that order in memory. Both are exact
    up to rounding. With `n_accumulations` a step works through its batch in so many parts and adds
    their gradients up, which takes about that share of the memory: exact too, but for BatchNorm,
    whose statistics are then those of a part. `compile` lets torch compile the forward of training
    and of the attack, which takes its time at the start and changes rounding.
    """

    experts: tuple[ExpertConfig, ...]
    evaluation: EvaluationConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    epochs: int = 120
    batch_size: int = 128
    seed: int = 0
    precision: Precision = "float32"
    fold_batchnorm: bool = False
    channels_last: bool = False
    n_accumulations: int = 1
    compile: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        names = [expert.name for expert in self.experts]
        cure = "Generalist mixes experts; add a natural or a robust one."
        require(len(names) >= 2, "two or more experts", f"experts={names}", cure)
        require(len(set(names)) == len(names), "experts of different names", f"experts={names}")
        for ratio in (*self.mixing.ratio.values, *self.evaluation.release_ratios):
            as_weights(ratio, len(names))
        require_positive("epochs", self.epochs)
        require_positive("batch_size", self.batch_size)
        require(
            1 <= self.n_accumulations <= self.batch_size,
            "1 <= n_accumulations <= batch_size",
            f"n_accumulations={self.n_accumulations}, batch_size={self.batch_size}",
            "A part of a batch is one image at least.",
        )
        require_one_of("precision", self.precision, PRECISIONS)
        require(
            self.sync.start_epoch < self.epochs,
            "sync.start_epoch < epochs",
            f"start_epoch={self.sync.start_epoch}, epochs={self.epochs}",
            "Without a sync the experts would never meet.",
        )

    def weights_at(self, epoch: int) -> tuple[float, ...]:
        """The weight of each expert in the mixture during `epoch`."""
        return self.mixing.ratio.weights(epoch / self.epochs, len(self.experts))
