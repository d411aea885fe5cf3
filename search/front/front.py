"""The front of operating points, and its hypervolume."""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from search.front.points import FrontPoint, points_html, values_of
from search.wording import plural


@dataclass(frozen=True, kw_only=True, repr=False)
class Front:
    """The operating points that no other dominates, and their hypervolume above `reference`.

    The points are sorted by the objectives in their order, the worst first.
    """

    objectives: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    reference: tuple[float, ...]
    hypervolume: float

    def __repr__(self) -> str:
        return f"<Front of {self._summary}>"

    def _repr_html_(self) -> str:
        summary = html.escape(f"Front of {self._summary} (validation, 95 % intervals)")
        return f"<p>{summary}</p>{points_html(self.points, self.objectives)}"

    @property
    def _summary(self) -> str:
        size, names = plural(len(self.points), "point"), ", ".join(self.objectives)
        return f"{size} in {names}: hypervolume {self.hypervolume:.4f}"

    @staticmethod
    def of(
        points: Sequence[FrontPoint],
        objectives: tuple[str, ...],
        reference: tuple[float, ...] | None = None,
    ) -> Front:
        """The front of `points`; among points with equal values the first is kept.

        The reference point is by default the origin.
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

    def as_good_as(self, point: FrontPoint) -> FrontPoint:
        """A point of the front that is at least as good as `point` in all objectives.

        It is `point` itself if this is on the front.
        """
        values = values_of([point], self.objectives)
        are_as_good = (values_of(self.points, self.objectives) >= values).all(1)
        return self.points[int(are_as_good.argmax())]

    def alike(self, point: FrontPoint) -> list[str]:
        """The names of the others whose intervals overlap with the point's in every objective."""
        low, high = np.array([point.interval(name) for name in self.objectives]).T
        overlap = (self._intervals[..., 0] <= high) & (low <= self._intervals[..., 1])
        alike = [self.points[n].name for n in np.flatnonzero(overlap.all(1))]
        return [name for name in alike if name != point.name]

    @functools.cached_property
    def _intervals(self) -> NDArray[np.float64]:
        """The confidence intervals, (points, objectives, 2)."""
        return np.array([[p.interval(name) for name in self.objectives] for p in self.points])


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `values`, (points, objectives), no other dominates; duplicates count once.

    All objectives are maximised.
    """
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    kept: NDArray[np.bool_] = moocore.is_nondominated(values, maximise=True, keep_weakly=False)
    return kept


def hypervolume(values: NDArray[np.float64], reference: Sequence[float] | None = None) -> float:
    """The volume that the rows dominate above `reference`, by default the origin; 0 for no rows."""
    if len(values) == 0:
        return 0.0
    origin = [0.0] * values.shape[1] if reference is None else list(reference)
    return float(moocore.hypervolume(values, ref=origin, maximise=True))
