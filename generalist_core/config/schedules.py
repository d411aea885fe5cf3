"""Factors that change over a run, as functions of its progress in [0, 1]."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from generalist_core.config.fields import Fraction, Positive, with_checked_fields
from generalist_core.validation import InvalidConfigError, require


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Constant:
    """The factor 1 throughout the run."""

    per_step: bool = False

    def __call__(self, progress: float, /) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class PiecewiseLinear:
    """Linear interpolation between `values` at `knots`.

    `knots` are fractions of the run, increasing from 0 to 1. With `per_step` the value changes at
    every step, otherwise only from epoch to epoch (as in the official Generalist code).
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    per_step: bool = False

    def __post_init__(self) -> None:
        require_knots(self.knots, len(self.values))
        require(min(self.values) >= 0, "min(values) >= 0", f"values={self.values}")

    def __call__(self, progress: float, /) -> float:
        left, fraction = locate(self.knots, progress)
        return self.values[left] + fraction * (self.values[left + 1] - self.values[left])


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Cosine:
    """Half a period of a cosine, from 1 to `final` (Loshchilov & Hutter 2017, without restarts)."""

    final: Fraction = 0.0
    per_step: bool = True

    def __call__(self, progress: float, /) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class OneCycle:
    """Linear from `initial` up to 1 at `peak` of the run, then down to `final` (Smith 2018)."""

    peak: Positive[float] = 0.3
    initial: Fraction = 0.04
    final: Fraction = 0.0
    per_step: bool = True

    def __post_init__(self) -> None:
        require(self.peak < 1, "peak < 1", f"peak={self.peak}")

    def __call__(self, progress: float, /) -> float:
        knots, values = (0.0, self.peak, 1.0), (self.initial, 1.0, self.final)
        return PiecewiseLinear(knots=knots, values=values)(progress)


Schedule = Constant | PiecewiseLinear | Cosine | OneCycle


def require_knots(knots: tuple[float, ...], n_values: int) -> None:
    """Check that knots increase from 0 to 1 and that there is one value for each."""
    rising = list(knots) == sorted(set(knots))
    if not (len(knots) >= 2 and knots[0] == 0 and knots[-1] == 1 and rising):
        raise InvalidConfigError(f"`knots` must increase from 0 to 1, but got knots={knots}.")
    require(
        len(knots) == n_values,
        "len(knots) == len(values)",
        f"{len(knots)} knots and {n_values} values",
    )


def locate(knots: tuple[float, ...], progress: float) -> tuple[int, float]:
    """The index of the interval that holds `progress`, and the fraction of it that has passed."""
    left = min(bisect_right(knots, progress), len(knots) - 1) - 1
    return left, (progress - knots[left]) / (knots[left + 1] - knots[left])
