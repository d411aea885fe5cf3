"""How a front and a choice from it would change with other validation images.

The verdicts on single images are not stored, so this is a parametric bootstrap (Efron 1979): the
images that a point classifies rightly are drawn from the binomial distribution of its accuracy, and
those that it classifies rightly under attack from among these. Each point is drawn by itself,
although all are measured on the same images, so that neighbours change places more often here than
they would: the shares are cautious.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from generalist_core.validation import InvalidConfigError
from search.front.front import Front, non_dominated
from search.front.pick import pick
from search.front.points import FrontPoint, values_of

N_DRAWS = 200

MEANING = f"{N_DRAWS} parametric re-draws of the validation images"
"""What a share is a share of; the verdicts on single images are not stored."""


def redraws(
    points: Sequence[FrontPoint], objectives: Sequence[str]
) -> Iterator[NDArray[np.float64]]:
    """Accuracies, (points, objectives), on each of `N_DRAWS` other sets of as many images.

    The first objective is the natural accuracy; no other is larger.
    """
    random = np.random.default_rng(0)
    natural, *others = values_of(points, objectives).T
    n_images = np.array([point.n_images for point in points])
    withstood = [np.minimum(1.0, other / np.maximum(natural, 1e-12)) for other in others]
    for _ in range(N_DRAWS):
        right = random.binomial(n_images, natural)
        hits = [right, *(random.binomial(right, share) for share in withstood)]
        yield np.stack(hits, 1) / n_images[:, None]


def kept_shares(front: Front, points: Sequence[FrontPoint]) -> dict[str, float]:
    """The share of the re-draws in which each point of a front is on the front of all `points`."""
    if not front.points:
        return {}
    drawn = redraws(points, front.objectives)
    shares = np.mean([non_dominated(values) for values in drawn], axis=0)
    share_of = {point.name: float(share) for point, share in zip(points, shares, strict=True)}
    return {point.name: share_of[point.name] for point in front.points}


def picked_share(front: Front, points: Sequence[FrontPoint], spec: str) -> float:
    """The share of the re-draws in which a rule, see `search.front.pick`, picks the same point."""
    chosen, n_same = pick(front, spec, points).point.name, 0
    for values in redraws(points, front.objectives):
        drawn = [
            replace(point, accuracies=dict(zip(front.objectives, map(float, row), strict=True)))
            for point, row, keeps in zip(points, values, non_dominated(values), strict=True)
            if keeps
        ]
        again = Front.of(drawn, front.objectives, front.reference)
        with contextlib.suppress(InvalidConfigError):  # a bound that no point reaches there
            n_same += pick(again, spec).point.name == chosen
    return n_same / N_DRAWS
