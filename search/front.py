"""Operating points, which of them no other dominates, and how much they win together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from generalist_core.config import Ratio


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One released mixture of one trial: (trial, mixing ratio) -> accuracy in each objective.

    `epoch` is that after which the experts were mixed, the same for all of a trial.
    """

    trial: str
    mixing_ratio: Ratio
    accuracies: Mapping[str, float]
    n_images: int
    epoch: int
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The trial and its ratio, fit for a file's name."""
        ratio = self.mixing_ratio if isinstance(self.mixing_ratio, tuple) else (self.mixing_ratio,)
        return "-".join([self.trial, *(f"{weight:.6g}" for weight in ratio)])

    def interval(self, objective: str) -> tuple[float, float]:
        """The 95 % interval of an accuracy."""
        return accuracy_interval(self.accuracies[objective], self.n_images)

    def is_distinguishable(self, other: FrontPoint) -> bool:
        """Whether the intervals are disjoint in some objective."""
        for name in self.accuracies:
            (low, high), (other_low, other_high) = self.interval(name), other.interval(name)
            if low > other_high or other_low > high:
                return True
        return False

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: accuracies and intervals by the objectives' names."""
        return {
            "trial": self.trial,
            "mixing_ratio": self.mixing_ratio,
            **self.accuracies,
            **{f"{name}_interval": list(self.interval(name)) for name in self.accuracies},
            "n_images": self.n_images,
            "epoch": self.epoch,
            "config": self.config,
        }


@dataclass(frozen=True, kw_only=True)
class Front:
    """The operating points that no other dominates, by rising first objective, and their worth."""

    objectives: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    reference: tuple[float, ...]
    hypervolume: float

    @staticmethod
    def of(
        points: Sequence[FrontPoint],
        objectives: tuple[str, ...],
        reference: tuple[float, ...] | None = None,
    ) -> Front:
        """The front among `points`; of points with equal values the first is kept.

        Its hypervolume is that above `reference`, by default the origin.
        """
        reference = reference or (0.0,) * len(objectives)
        values = values_of(points, objectives)
        kept = non_dominated(values)
        chosen = [point for point, keep in zip(points, kept, strict=True) if keep]
        ordered = sorted(chosen, key=lambda p: [p.accuracies[name] for name in objectives])
        return Front(
            objectives=objectives,
            points=tuple(ordered),
            reference=reference,
            hypervolume=hypervolume(values, reference),
        )

    def indistinguishable(self) -> dict[str, list[str]]:
        """For each point's name the others whose intervals overlap with its own everywhere."""
        return {
            point.name: [
                other.name
                for other in self.points
                if other is not point and not point.is_distinguishable(other)
            ]
            for point in self.points
        }


def accuracy_interval(
    accuracy: float, n_images: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Clopper & Pearson's (1934) exact binomial interval of an accuracy on `n_images` images."""
    # As quantiles of beta distributions: a hundred times as fast as searching for the ends.
    hits, tail = round(accuracy * n_images), (1 - confidence) / 2
    misses = n_images - hits
    low = betaincinv(hits, misses + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, misses, 1 - tail) if misses > 0 else 1.0
    return (float(low), float(high))


def values_of(points: Sequence[FrontPoint], objectives: Sequence[str]) -> NDArray[np.float64]:
    """The accuracies as a matrix, (points, objectives)."""
    rows = [[point.accuracies[name] for name in objectives] for point in points]
    return np.array(rows, dtype=np.float64).reshape(len(points), len(objectives))


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of (points, objectives), to be maximised, no other dominates; duplicates once."""
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    kept: NDArray[np.bool_] = moocore.is_nondominated(values, maximise=True, keep_weakly=False)
    return kept


def hypervolume(values: NDArray[np.float64], reference: Sequence[float] | None = None) -> float:
    """The volume dominated by the rows above `reference`, by default the origin; 0 for none."""
    if len(values) == 0:
        return 0.0
    origin = [0.0] * values.shape[1] if reference is None else list(reference)
    return float(moocore.hypervolume(values, ref=origin, maximise=True))
