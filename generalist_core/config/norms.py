"""Robust experts of several norms, and the radii that are usual for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from generalist_core.config.attacks import (
    FGSM,
    NORMS,
    PGD,
    Attack,
    Combine,
    MultiTargeted,
    Norm,
    SeveralAttacks,
)
from generalist_core.config.data import DataConfig
from generalist_core.config.evaluation import EvaluationConfig, NamedAttack
from generalist_core.config.mixing import Ratio, as_weights, rounded, vertex
from generalist_core.config.train import ExpertConfig, TrainConfig
from generalist_core.validation import InvalidConfigError, require_one_of

COLOUR: dict[Norm, float] = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""The radii of Croce & Hein (2022) for CIFAR-10."""

RADII: dict[str, dict[Norm, float]] = {
    "digits": {"linf": 0.2, "l2": 1.0, "l1": 3.0},
    "mnist": {"linf": 0.3, "l2": 2.0, "l1": 10.0},
    "fashion-mnist": {"linf": 0.1},
    "cifar10": COLOUR,
    "cifar100": COLOUR,
    "svhn": COLOUR,
}
"""The usual radii: MNIST's are those of Maini et al. (2020); for Fashion-MNIST only Linf has one.

For the digits there are none in the literature. These leave an expert of the preset `short`, which
was trained on the attack, about 20 to 30 % of robust accuracy, after as many epochs in each norm.
"""


def usual_radius(data: DataConfig, norm: Norm) -> float:
    """The radius in a norm that is usual for a data set.

    Raises:
        InvalidConfigError: none is, or the images are resized, which changes lengths in L2 and L1.
    """
    radius = RADII.get(data.name, {}).get(norm)
    if radius is None or (data.image_size is not None and norm != "linf"):
        resized = f" at image_size={data.image_size}" if data.image_size is not None else ""
        raise InvalidConfigError(
            f"The radius in {norm} must be given where none is usual, but got {norm} alone for "
            f"{data.name}{resized}. Give it as in {norm}=0.5."
        )
    return radius


def with_norms(config: TrainConfig, radii: Mapping[Norm, float]) -> TrainConfig:
    """`config` with a robust expert for each norm of `radii` in place of its only one.

    Each has the settings of that one, with its attack in another norm and radius, and the name of
    its norm. They share its weight in the schedule of the mixing ratio equally. Each expert alone
    and the mixture of equal weights are released. The evaluation is `judged_in` the norms.

    Raises:
        InvalidConfigError: there is not one natural and one robust expert, in this order; an attack
            is of one norm only; or a radius cannot be used.
    """
    natural, robust = _pair(config)
    experts = [
        replace(robust, name=n).mapped(partial(_in_norm, norm=n, radii=radii)) for n in radii
    ]
    ratio = config.mixing.ratio
    shared = replace(ratio, values=tuple(_shared(value, len(radii)) for value in ratio.values))
    released = corners_and_centre(1 + len(radii))
    return replace(
        config,
        experts=(natural, *experts),
        mixing=replace(config.mixing, ratio=shared),
        evaluation=replace(judged_in(config.evaluation, radii), release_ratios=released),
    )


def with_combined_norms(
    config: TrainConfig, radii: Mapping[Norm, float], combine: Combine
) -> TrainConfig:
    """`config` with its robust expert trained on its attack in all norms, see `SeveralAttacks`.

    The evaluation is `judged_in` the norms. Raises as `with_norms`, and if there are fewer than two
    norms or the attack is not PGD.
    """
    natural, robust = _pair(config)
    together = robust.mapped(partial(_in_all_norms, radii=radii, combine=combine))
    return replace(
        config, experts=(natural, together), evaluation=judged_in(config.evaluation, radii)
    )


def judged_in(evaluation: EvaluationConfig, radii: Mapping[Norm, float]) -> EvaluationConfig:
    """`evaluation` with its first attack in each norm and radius, by the name of the norm.

    With several norms PGD becomes MultiTargeted of as many steps, because PGD overstates robustness
    in other norms than a model was trained in.
    """
    judging = evaluation.attacks[0].attack
    if isinstance(judging, PGD) and len(radii) > 1:
        judging = MultiTargeted(epsilon=judging.epsilon, steps=judging.steps)
    attacks = (NamedAttack(name=norm, attack=_in_norm(judging, norm, radii)) for norm in radii)
    return replace(evaluation, attacks=tuple(attacks))


def corners_and_centre(n_experts: int) -> tuple[Ratio, ...]:
    """The mixing ratios of each expert alone, and the one of equal weights."""
    if n_experts == 2:
        return (0.0, centre(2), 1.0)
    return (*(vertex(i, n_experts) for i in range(n_experts)), centre(n_experts))


def centre(n_experts: int) -> Ratio:
    """The mixing ratio of equal weights."""
    return 0.5 if n_experts == 2 else rounded((1 / n_experts,) * n_experts)


def _pair(config: TrainConfig) -> tuple[ExpertConfig, ExpertConfig]:
    """The natural and the robust expert of a configuration that has one of each."""
    if [expert.attack is not None for expert in config.experts] != [False, True]:
        names = ", ".join(expert.name for expert in config.experts)
        raise InvalidConfigError(
            "Norms must be set for a natural expert and then a robust one, but got the experts "
            f"{names}. Start from a preset such as short or paper."
        )
    natural, robust = config.experts
    return natural, robust


def _in_norm(attack: Attack | None, norm: Norm, radii: Mapping[Norm, float]) -> Attack:
    """The attack in another norm and radius."""
    require_one_of("norm", norm, NORMS)
    if not isinstance(attack, PGD | FGSM | MultiTargeted):
        raise InvalidConfigError(
            "An attack must be PGD, FGSM or MultiTargeted to be set in another norm, but got "
            f"{attack}. Start from a preset such as short or paper."
        )
    return replace(attack, norm=norm, epsilon=radii[norm])


def _in_all_norms(
    attack: Attack | None, radii: Mapping[Norm, float], combine: Combine
) -> SeveralAttacks:
    """The attack in every norm and its radius."""
    if len(radii) < 2:
        raise InvalidConfigError(
            f"Norms must be two or more to be combined, but got {', '.join(radii)}. Train on one "
            "without combining."
        )
    if not isinstance(attack, PGD):
        raise InvalidConfigError(
            f"An attack must be PGD to be combined in several norms, but got {attack}. Train an "
            "expert for each norm, or start from a preset such as short or paper."
        )
    parts = tuple(replace(attack, norm=norm, epsilon=radius) for norm, radius in radii.items())
    return SeveralAttacks(parts=parts, combine=combine)


def _shared(ratio: Ratio, n_robust: int) -> Ratio:
    """The ratio of two experts, with the weight of the second shared by `n_robust` ones."""
    first, second = as_weights(ratio, 2)
    return second if n_robust == 1 else (first, *(second / n_robust,) * n_robust)
