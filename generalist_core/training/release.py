"""Which mixtures of two trained experts to evaluate: more of them where the front has room."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from generalist_core.config import Ratio, as_weights
from generalist_core.training.evaluator import OperatingPoint


def refined(
    release: Callable[[Ratio], OperatingPoint], ratios: Sequence[Ratio], n_refinements: int
) -> list[OperatingPoint]:
    """The points at `ratios`, in that order, then at most `n_refinements` more.

    Each is halfway between the two neighbours with the most `room` between them, in twelve decimals
    so that its name is short. It ends when no room is as large as one image, 1 / n_images. Needs
    two experts.
    """
    points = [release(ratio) for ratio in ratios]
    for _ in range(n_refinements if len(points) > 1 else 0):
        neighbours = pairwise(sorted(points, key=_weight))
        a, b = max(neighbours, key=lambda pair: room(*pair))
        if room(a, b) < 1 / a.n_images:
            break
        points.append(release(round((_weight(a) + _weight(b)) / 2, 12)))
    return points


def room(a: OperatingPoint, b: OperatingPoint) -> float:
    """The largest hypervolume that points between two could add: the product of the differences.

    It is assumed that no mixture is better than both its neighbours in any objective.
    """
    return math.prod(abs(value - b.accuracies[name]) for name, value in a.accuracies.items())


def _weight(point: OperatingPoint) -> float:
    return as_weights(point.mixing_ratio, 2)[1]
