"""How experts are mixed, and when they restart from the mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from generalist_core.config.fields import BelowOne, NotNegative, Positive, with_checked_fields
from generalist_core.config.schedules import locate, require_knots
from generalist_core.validation import InvalidConfigError, require_fraction

Ratio = float | tuple[float, ...]
"""A mixing ratio: the weight of the second of two experts, or one weight per expert."""

GLOBAL: Literal["global"] = "global"

Released = Ratio | Literal["global"]
"""What is released: the mixture of the experts' averages at a ratio, or the global learner."""

N_DECIMALS = 6
"""Decimals of a suggested weight: more would change no verdict, and make the point's name long."""


def as_weights(ratio: Ratio, n_experts: int) -> tuple[float, ...]:
    """The weight of each expert, in their order: a point on the simplex.

    Raises:
        InvalidConfigError: the ratio is a number outside [0, 1], or not for two experts; or its
            weights are negative, do not add up to 1, or are not one per expert.
    """
    n_weights = 2 if isinstance(ratio, int | float) else len(ratio)
    if n_weights != n_experts:
        raise InvalidConfigError(
            "A mixing ratio must have one weight per expert, but got "
            f"mixing_ratio={ratio} for {n_experts} experts."
        )
    if isinstance(ratio, int | float):
        require_fraction("mixing_ratio", ratio)
        return (1.0 - ratio, float(ratio))
    if not (min(ratio) >= 0 and abs(sum(ratio) - 1) < 1e-9):
        raise InvalidConfigError(
            f"The weights of a mixing ratio must be >= 0 and sum to 1, but got {ratio}."
        )
    return tuple(float(weight) for weight in ratio)


def vertex(index: int, n_experts: int) -> Ratio:
    """The ratio at which the expert of that index has all the weight."""
    if n_experts == 2:
        return float(index)
    return tuple(float(i == index) for i in range(n_experts))


def weights_of(shares: Sequence[float]) -> tuple[float, ...]:
    """The point on the simplex that numbers in [0, 1], one per expert, stand for.

    The weights are proportional to -log(1 - share), and equal if all shares are 0. No expert has a
    role of its own, every point has shares, and independent uniform shares give uniform points
    (Devroye 1986, Non-Uniform Random Variate Generation, section XI.4). A share of 1 counts as one
    just below it.
    """
    parts = [math.log(1 / max(1 - share, 1e-12)) for share in shares]
    total = sum(parts)
    return tuple(part / total if total > 0 else 1 / len(parts) for part in parts)


def shares_of(weights: Sequence[float]) -> tuple[float, ...]:
    """The shares of a point on the simplex whose -log(1 - share) have the mean 1."""
    return tuple(-math.expm1(-len(weights) * weight) for weight in weights)


def rounded(weights: Sequence[float]) -> tuple[float, ...]:
    """The weights in `N_DECIMALS`; the largest takes what rounding has left."""
    short = [round(weight, N_DECIMALS) for weight in weights]
    largest = short.index(max(short))
    short[largest] = round(short[largest] + 1 - sum(short), N_DECIMALS)
    return tuple(short)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class RatioSchedule:
    """The mixing ratio over a run: linear between `values` at `knots`, constant within an epoch."""

    knots: tuple[float, ...] = (0.0, 1.0)
    values: tuple[Ratio, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        require_knots(self.knots, len(self.values))

    @property
    def start_shares(self) -> tuple[float, ...]:
        """The shares of the first ratio; none where it is the weight of the second of two."""
        return shares_of(self.values[0]) if isinstance(self.values[0], tuple) else ()

    @property
    def end_shares(self) -> tuple[float, ...]:
        """The shares of the last ratio; none where it is the weight of the second of two."""
        return shares_of(self.values[-1]) if isinstance(self.values[-1], tuple) else ()

    def weights(self, progress: float, n_experts: int) -> tuple[float, ...]:
        """The weight of each expert at `progress`."""
        left, fraction = locate(self.knots, progress)
        start, end = (as_weights(self.values[left + i], n_experts) for i in (0, 1))
        return tuple(a + fraction * (b - a) for a, b in zip(start, end, strict=True))


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class MixingConfig:
    """How experts are averaged over time and mixed into the global learner.

    At update t = 0, 1, ... every average keeps the fraction `decay` of itself, or with
    `decay_warmup` the fraction min(decay, (t + 1) / (t + 10)). The global learner is such an
    average too: of the mixture of the `experts` (algorithm 1 of the paper) or of the mixture of
    their `averages` (the official code).
    """

    ratio: RatioSchedule = field(default_factory=RatioSchedule)
    source: Literal["experts", "averages"] = "experts"
    decay: BelowOne = 0.999
    decay_warmup: bool = True

    def decay_at(self, update: int) -> float:
        """The decay of the averages at update number `update` = 0, 1, ..."""
        return min(self.decay, (update + 1) / (update + 10)) if self.decay_warmup else self.decay


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SyncConfig:
    """When experts restart from the global learner.

    The sync epochs, counted from 0, are `start_epoch` and every `every_epochs` epochs after it. At
    the `boundary`, experts restart once, before a sync epoch begins; at `every_step`, they restart
    after each step of a sync epoch (the official code). Momentum and averages survive a sync unless
    they are told to restart. An expert whose weight is 0 in every epoch up to and including the
    first sync loses there all that it has learned, except what remains in its average; with
    `skip_discarded_warmup` it is not trained before that sync, and begins as the global learner.
    """

    start_epoch: NotNegative[int] = 75
    every_epochs: Positive[int] = 5
    at: Literal["boundary", "every_step"] = "boundary"
    restart_momentum: bool = False
    restart_averages: bool = False
    skip_discarded_warmup: bool = True

    def is_sync(self, epoch: int) -> bool:
        """Whether `epoch` is a sync epoch."""
        since = epoch - self.start_epoch
        return since >= 0 and since % self.every_epochs == 0


def ratio_key(ratio: Ratio) -> tuple[float, ...]:
    """The ratio as a tuple, by which ratios can be sorted."""
    return ratio if isinstance(ratio, tuple) else (ratio,)


def released_order(released: Released) -> tuple[float, ...]:
    """What sorts by mixing ratio; the global learner, which has none, comes last."""
    return (math.inf,) if released == GLOBAL else ratio_key(released)


def ratio_text(released: Released) -> str:
    """The ratio with three digits per weight, such as `0.312` or `0.2-0.3-0.5`, or `global`."""
    if released == GLOBAL:
        return GLOBAL
    return "-".join(f"{weight:.3g}" for weight in ratio_key(released))


def released_text(released: Released) -> str:
    """What was released in words: `mixing ratio 0.312`, or `global learner`."""
    return "global learner" if released == GLOBAL else f"mixing ratio {ratio_text(released)}"


def as_ratio(stored: float | Sequence[float]) -> Ratio:
    """A ratio as it was before JSON turned its tuple into a list."""
    return tuple(stored) if isinstance(stored, list | tuple) else float(stored)  # type: ignore[arg-type]


def as_released(stored: float | str | Sequence[float]) -> Released:
    """What was released, as it was before JSON."""
    return GLOBAL if stored == GLOBAL else as_ratio(stored)  # type: ignore[arg-type]
