"""Published settings, and one that is scaled to short runs.

Each is a function from a run's frame (data, model, epochs, attack radius) to a TrainConfig, so that
a setting can be carried over to other data: rates and ratios are functions of progress, and the
first sync and the interval between syncs keep their fraction of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from generalist_core.config import (
    PGD,
    SGD,
    DataConfig,
    EvaluationConfig,
    ExpertConfig,
    MixingConfig,
    ModelConfig,
    NamedAttack,
    PiecewiseLinear,
    RatioSchedule,
    SyncConfig,
    TrainConfig,
)
from generalist_core.config.norms import centre, corners_and_centre, usual_radius, with_norms
from generalist_core.validation import InvalidConfigError

CIFAR10 = DataConfig(name="cifar10", n_validation=1000, crop_padding=4, flip=True)

RESNET18 = ModelConfig(name="resnet18")

KNOTS = (0.0, 1 / 3, 2 / 3, 1.0)


def official(
    *,
    data: DataConfig = CIFAR10,
    model: ModelConfig = RESNET18,
    epochs: int = 120,
    epsilon: float = 0.031,
) -> TrainConfig:
    """The exact rule of the official code (commit f0dc153), with its values for ResNet-18 or a WRN.

    The global learner averages the mixture of averages. The robust expert has all the weight for
    two thirds of the run, and a weight that falls to 0.4 after that. Experts restart after every
    step of a sync epoch. The natural expert is trained from the start, although the first sync
    overwrites it. The experts of the last epoch are released. The official code numbers epochs from
    1: of 120, its sync epochs 75, 80, ..., 120 are our 74, 79, ..., 119. On a GPU that has TF32 the
    code convolves in it, as torch does by default.
    """
    exact = _config(data, model, epochs, epsilon, source="averages", at="every_step")
    return replace(
        exact,
        evaluation=replace(exact.evaluation, release="last"),
        sync=replace(exact.sync, start_epoch=max(0, exact.sync.start_epoch - 1)),
        epoch_progress="end",
        precision="tfloat32-convolutions",
    )


def paper(
    *,
    data: DataConfig = CIFAR10,
    model: ModelConfig = RESNET18,
    epochs: int = 120,
    epsilon: float = 8 / 255,
) -> TrainConfig:
    """Algorithm 1 of the paper: the mixture of the experts themselves, and syncs at boundaries."""
    exact = _config(data, model, epochs, epsilon, source="experts", at="boundary")
    return replace(
        exact,
        evaluation=replace(exact.evaluation, precision="auto"),
        precision="auto",
        fold_batchnorm=True,
        channels_last=True,
        cuda_graph=True,
    )


def short(
    *,
    data: DataConfig | None = None,
    model: ModelConfig | None = None,
    epochs: int = 16,
    epsilon: float = 0.2,
) -> TrainConfig:
    """The paper's algorithm with rates, averages and syncs that suit a small net and few epochs.

    The defaults, a net of width 8 and radius 0.2, show a real trade-off on the digits.
    """
    data = data or DataConfig()
    model = model or ModelConfig(name="convnet", width=8)
    schedule = PiecewiseLinear(knots=KNOTS, values=(1.0, 1.0, 0.3, 0.03), per_step=True)
    attack = PGD(epsilon=epsilon)
    return TrainConfig(
        data=data,
        model=model,
        experts=(
            ExpertConfig(name="natural", optimizer=SGD(lr=0.1), schedule=schedule),
            ExpertConfig(name="robust", attack=attack, optimizer=SGD(lr=0.1), schedule=schedule),
        ),
        mixing=MixingConfig(ratio=RatioSchedule(knots=(0.0, 1.0), values=(0.5, 0.5)), decay=0.98),
        sync=SyncConfig(start_epoch=epochs * 5 // 8, every_epochs=max(1, epochs // 16)),
        evaluation=replace(
            _evaluation(PGD(epsilon=epsilon), every_epochs=max(1, epochs // 8)),
            n_images_during_training=200,
            precision="auto",
        ),
        epochs=epochs,
        batch_size=64,
        precision="auto",
        fold_batchnorm=True,
        channels_last=True,
        cuda_graph=True,
    )


def generalist_plus_plus(
    *tasks: Literal["natural", "linf", "l2", "l1"],
    data: DataConfig = CIFAR10,
    model: ModelConfig = RESNET18,
    epochs: int = 120,
    epsilon: float | None = None,
) -> TrainConfig:
    """Generalist++ (Wang et al. 2025, arXiv 2510.13361): an expert for each of two or more tasks.

    What the paper says is used: an expert per task, whose parameters are interpolated late in
    training and redistributed from time to time. Its radii, rates, syncs and mixing ratios are not
    known here. All of them are those of `paper`, in which robust experts share a weight equally;
    without a natural expert the ratio is constant and equal. `epsilon` is the radius if there is
    one norm; by default the radii are the usual ones of `data`.

    Raises:
        InvalidConfigError: `epsilon` is given for several norms, or a norm has no usual radius.
    """
    norms = [task for task in tasks if task != "natural"]
    if epsilon is not None and len(norms) > 1:
        raise InvalidConfigError(
            f"`epsilon` must be left out with several norms, but got {epsilon:g} for "
            f"{', '.join(norms)}. Give one radius per norm, as in --norms linf=8/255,l2=0.5."
        )
    radii = {norm: usual_radius(data, norm) if epsilon is None else epsilon for norm in norms}
    config = with_norms(paper(data=data, model=model, epochs=epochs), radii)
    if "natural" in tasks:
        return config
    n_experts = len(norms)
    constant = RatioSchedule(knots=(0.0, 1.0), values=(centre(n_experts),) * 2)
    ratios = corners_and_centre(n_experts)
    return replace(
        config,
        experts=config.experts[1:],
        mixing=replace(config.mixing, ratio=constant),
        evaluation=replace(config.evaluation, release_ratios=ratios),
    )


PRESETS: dict[str, Callable[..., TrainConfig]] = {
    "official": official,
    "paper": paper,
    "short": short,
    "natural+linf": partial(generalist_plus_plus, "natural", "linf"),
    "natural+l2": partial(generalist_plus_plus, "natural", "l2"),
    "linf+l2": partial(generalist_plus_plus, "linf", "l2"),
    "natural+linf+l2": partial(generalist_plus_plus, "natural", "linf", "l2"),
}


def _config(
    data: DataConfig,
    model: ModelConfig,
    epochs: int,
    epsilon: float,
    *,
    source: Literal["experts", "averages"],
    at: Literal["boundary", "every_step"],
) -> TrainConfig:
    is_wide = model.name.startswith("wrn")
    lr, factors = (0.1, (1.0, 1.0, 0.1, 0.05)) if is_wide else (0.01, (1.0, 1.0, 0.1, 0.01))
    schedule = PiecewiseLinear(knots=KNOTS, values=factors)
    weight_decay = 7e-4 if is_wide else 3.5e-3
    attack = PGD(epsilon=epsilon, steps=10, relative_step_size=0.007 / 0.031)
    return TrainConfig(
        data=data,
        model=model,
        experts=(
            ExpertConfig(
                name="natural", optimizer=SGD(lr=lr, weight_decay=5e-4), schedule=schedule
            ),
            ExpertConfig(
                name="robust",
                attack=attack,
                optimizer=SGD(lr=lr, weight_decay=weight_decay),
                schedule=schedule,
            ),
        ),
        mixing=MixingConfig(
            ratio=RatioSchedule(knots=(0.0, 2 / 3, 1.0), values=(1.0, 1.0, 0.4)), source=source
        ),
        sync=SyncConfig(
            start_epoch=epochs * 75 // 120,
            every_epochs=max(1, epochs * 5 // 120),
            at=at,
            skip_discarded_warmup=at == "boundary",
        ),
        evaluation=_evaluation(
            PGD(epsilon=epsilon, steps=20, relative_step_size=0.1),
            every_epochs=max(1, epochs // 12),
        ),
        epochs=epochs,
        batch_size=128,
    )


def _evaluation(attack: PGD, *, every_epochs: int) -> EvaluationConfig:
    robust = NamedAttack(name="robust", attack=attack)
    return EvaluationConfig(attacks=(robust,), every_epochs=every_epochs)
