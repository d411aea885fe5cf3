"""How experts are mixed, and when they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from generalist_core.config.schedules import locate, require_knots
from generalist_core.validation import require, require_between, require_one_of, require_positive

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


@dataclass(frozen=True, kw_only=True)
class RatioSchedule:
    """The mixing ratio over the run: linear between `values` at `knots`, constant in an epoch."""

    knots: tuple[float, ...] = (0.0, 1.0)
    values: tuple[Ratio, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        require_knots(self.knots, len(self.values))

    def weights(self, progress: float, n_experts: int) -> tuple[float, ...]:
        """The weight of each expert at `progress`."""
        left, fraction = locate(self.knots, progress)
        start, end = (as_weights(self.values[left + i], n_experts) for i in (0, 1))
        return tuple(a + fraction * (b - a) for a, b in zip(start, end, strict=True))


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


def ratio_key(ratio: Ratio) -> tuple[float, ...]:
    """A ratio by which others can be sorted."""
    return ratio if isinstance(ratio, tuple) else (ratio,)


def ratio_text(ratio: Ratio) -> str:
    """A ratio for people, in three digits, such as `0.312` or `0.2-0.3-0.5`."""
    return "-".join(f"{weight:.3g}" for weight in ratio_key(ratio))


def as_ratio(stored: float | Sequence[float]) -> Ratio:
    """A ratio as it was before JSON made lists of tuples."""
    return tuple(stored) if isinstance(stored, list | tuple) else float(stored)  # type: ignore[arg-type]
