"""Which mixtures of trained experts to evaluate: more of them where the front has room."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from generalist_core.config import Ratio, as_weights
from generalist_core.config.mixing import GLOBAL, ratio_key, rounded
from generalist_core.training.evaluator import OperatingPoint

SLACK = 1e-5
"""How far a point may lie from a segment or triangle that holds it, by rounding."""


def refined(
    release: Callable[[Ratio], OperatingPoint], ratios: Sequence[Ratio], n_refinements: int
) -> list[OperatingPoint]:
    """The points at `ratios`, in that order, then at most `n_refinements` more.

    With two experts each is `between_two` of the points before it, with more `between_several`. Its
    weights are rounded, so that its name is short.
    """
    points = [release(ratio) for ratio in ratios]
    between = between_two if len(ratio_key(ratios[0])) <= 2 else between_several
    for _ in range(n_refinements if len(points) > 1 else 0):
        ratio = between(points)
        if ratio is None:
            break
        points.append(release(ratio))
    return points


def between_two(points: Sequence[OperatingPoint]) -> Ratio | None:
    """The ratio halfway between the two neighbours with the most `room` between them.

    None if no room is as large as one image, 1 / n_images.
    """
    neighbours = pairwise(sorted(points, key=_weight))
    a, b = max(neighbours, key=lambda pair: room(*pair))
    if room(a, b) < 1 / a.n_images:
        return None
    return round((_weight(a) + _weight(b)) / 2, 12)


def room(a: OperatingPoint, b: OperatingPoint) -> float:
    """The largest hypervolume that points between two could add: the product of the differences.

    It is assumed that no mixture is better than both its neighbours in any objective.
    """
    return math.prod(abs(value - b.accuracies[name]) for name, value in a.accuracies.items())


def between_several(points: Sequence[OperatingPoint]) -> Ratio | None:
    """The centre of the segment or triangle of points that promises the most hypervolume.

    What one promises is what its centre would add if accuracies were linear in the ratio. For two
    neighbours on a front of two objectives that is a quarter of their `room`. None if that is less
    than a quarter of an image, or if all segments and triangles hold a further point.
    """
    weights = np.array([point.mixing_ratio for point in points])
    values = np.array([list(point.accuracies.values()) for point in points])
    before, most, centre = hypervolume(values), 1 / (4 * points[0].n_images), None
    for n_corners in (2, 3):
        for corners in map(list, combinations(range(len(points)), n_corners)):
            middle = values[corners].mean(0)
            if (values >= middle).all(1).any():
                continue
            promised = hypervolume(np.vstack([values, middle])) - before
            if promised > most and is_empty(weights, corners):
                most, centre = promised, weights[corners].mean(0)
    return None if centre is None else rounded(centre.tolist())


def is_empty(weights: NDArray[np.float64], corners: Sequence[int]) -> bool:
    """Whether the simplex with these corners holds no other row of `weights`, and is not flat."""
    others = np.delete(weights, corners, axis=0)
    system, wanted = (np.column_stack([w, np.ones(len(w))]).T for w in (weights[corners], others))
    if np.linalg.matrix_rank(system) < len(corners):
        return False
    coordinates = np.linalg.lstsq(system, wanted)[0]
    is_on_plane = np.abs(system @ coordinates - wanted).max(0, initial=0.0) < SLACK
    return not bool((is_on_plane & (coordinates > -SLACK).all(0)).any())


def hypervolume(values: NDArray[np.float64]) -> float:
    """The volume that rows >= 0 dominate above the origin, in slices along the last objective.

    There are two objectives or more.
    """
    ordered = values[np.argsort(-values[:, -1])]
    heights = -np.diff(ordered[:, -1], append=0.0)
    if values.shape[1] == 2:
        return float(heights @ np.maximum.accumulate(ordered[:, 0]))
    return sum(
        float(height) * hypervolume(ordered[: n + 1, :-1])
        for n, height in enumerate(heights)
        if height > 0
    )


def _weight(point: OperatingPoint) -> float:
    assert point.mixing_ratio != GLOBAL
    return as_weights(point.mixing_ratio, 2)[1]
