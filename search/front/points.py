"""Operating points: their names, their intervals, their JSON form."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from generalist_core.config.mixing import GLOBAL, Released, as_released, ratio_key, released_order
from generalist_core.training.evaluator import OperatingPoint


def trial_id(number: int) -> str:
    """The id of the trial with this number, counted from 0: at least four digits."""
    return f"{number:04d}"


def point_to_dict(point: OperatingPoint) -> dict[str, Any]:
    """The JSON form of an operating point."""
    return {
        "mixing_ratio": point.mixing_ratio,
        "accuracies": dict(point.accuracies),
        "n_images": point.n_images,
        "epoch": point.epoch,
    }


def points_from_dicts(rows: Sequence[Mapping[str, Any]]) -> list[OperatingPoint]:
    """The operating points that `point_to_dict` wrote."""
    return [
        OperatingPoint(
            mixing_ratio=as_released(row["mixing_ratio"]),
            accuracies=row["accuracies"],
            n_images=row["n_images"],
            epoch=row["epoch"],
        )
        for row in rows
    ]


def by_trial(points: Sequence[FrontPoint]) -> dict[str, list[FrontPoint]]:
    """The points of each trial."""
    released: dict[str, list[FrontPoint]] = {}
    for point in points:
        released.setdefault(point.trial, []).append(point)
    return released


def release_curves(points: Sequence[FrontPoint]) -> list[list[FrontPoint]]:
    """The mixtures of each trial, sorted by mixing ratio."""
    curves = by_trial([point for point in points if not point.is_global]).values()
    return [sorted(curve, key=lambda p: released_order(p.mixing_ratio)) for curve in curves]


@dataclass(frozen=True, kw_only=True, repr=False)
class FrontPoint:
    """One released mixture of one trial: (trial, mixing ratio) -> accuracy in each objective.

    The global learner of a trial is such a point too, with the mark `global` as its mixing ratio.
    The experts were mixed after `epoch` epochs, the same number for all points of a trial.
    `config` is the JSON form of the trial's configuration.
    """

    trial: str
    mixing_ratio: Released
    accuracies: Mapping[str, float]
    n_images: int
    epoch: int
    config: Mapping[str, Any]

    def __repr__(self) -> str:
        accuracies = (f"{name} {100 * value:.1f} %" for name, value in self.accuracies.items())
        return f"<FrontPoint {self.name}: {', '.join(accuracies)}>"

    def _repr_html_(self) -> str:
        return points_html([self], list(self.accuracies))

    @property
    def name(self) -> str:
        """TRIAL-RATIO, such as `0004-0.928`: the point's name in files, in JSON and in print.

        The weights of the ratio have as many digits as tell them from all others, and no exponent:
        no two points of a trial have the same name. The global learner's is TRIAL-global.
        """
        if self.mixing_ratio == GLOBAL:
            return f"{self.trial}-{GLOBAL}"
        return "-".join([self.trial, *map(_weight_text, ratio_key(self.mixing_ratio))])

    @property
    def is_global(self) -> bool:
        """Whether it is the global learner of its trial, and no mixture of averages."""
        return self.mixing_ratio == GLOBAL

    def interval(self, objective: str) -> tuple[float, float]:
        """The 95 % confidence interval of an accuracy."""
        return accuracy_interval(self.accuracies[objective], self.n_images)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; accuracies and intervals stand under the names of the objectives."""
        return {
            "trial": self.trial,
            "mixing_ratio": self.mixing_ratio,
            **self.accuracies,
            **{f"{name}_interval": list(self.interval(name)) for name in self.accuracies},
            "n_images": self.n_images,
            "epoch": self.epoch,
            "config": self.config,
        }


def accuracy_interval(accuracy: float, n_images: int) -> tuple[float, float]:
    """The exact 95 % interval of an accuracy on `n_images` images (Clopper & Pearson 1934)."""
    # The ends are quantiles of beta distributions: a hundred times as fast as searching for them.
    hits = round(accuracy * n_images)
    misses = n_images - hits
    low = betaincinv(hits, misses + 1, 0.025) if hits > 0 else 0.0
    high = betaincinv(hits + 1, misses, 0.975) if misses > 0 else 1.0
    return (float(low), float(high))


def values_of(
    points: Sequence[FrontPoint | OperatingPoint], objectives: Sequence[str]
) -> NDArray[np.float64]:
    """The accuracies as a matrix, (points, objectives)."""
    rows = [[point.accuracies[name] for name in objectives] for point in points]
    return np.array(rows, dtype=np.float64).reshape(len(points), len(objectives))


def interval_text(accuracy: float, interval: Sequence[float]) -> str:
    """An accuracy with its interval in %, such as `88.6 [85.5, 91.3]`."""
    low, high = interval
    return f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def points_html(points: Sequence[FrontPoint], objectives: Sequence[str]) -> str:
    """The points as a table for a notebook: names, and accuracies in % with their intervals."""
    rows = [["#", "point", *(f"{name} %" for name in objectives)]]
    for number, point in enumerate(points, 1):
        cells = (interval_text(point.accuracies[name], point.interval(name)) for name in objectives)
        rows.append([str(number), point.name, *cells])
    tags = ["th", *["td"] * len(points)]
    lines = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(tags, rows, strict=True)
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def accuracies_text(point: FrontPoint) -> str:
    """A point's accuracies in %, with their 95 % intervals."""
    cells = []
    for name, accuracy in point.accuracies.items():
        cells.append(f"{name} {interval_text(accuracy, point.interval(name))} %")
    return "  ".join(cells)


def _weight_text(weight: float) -> str:
    return np.format_float_positional(weight, trim="-")
