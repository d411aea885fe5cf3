"""Repeats of a front: the empirical attainment function, and the spread of each point."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from generalist_core.config.mixing import Released, as_released
from search.files import read_if_intact
from search.folders import SweepFolder
from search.front.front import Front

MAX_OBJECTIVES = 3
"""With how many objectives moocore can compute attainment."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The best `values`, (points, objectives), that at least `n_repeats` repeats attain."""

    n_repeats: int
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """The attainment surfaces of `n_repeats` repeats: for one repeat, for two, ..., for all.

    `n_left_out` repeats are left out because a training failed in them, so that their fronts are
    incomplete. With more than `MAX_OBJECTIVES` objectives there are no surfaces.
    """

    n_repeats: int
    n_left_out: int
    surfaces: tuple[Surface, ...]


def attainment(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> Attainment:
    """The attainment of repeats; `rows` are those of `repeats.json`.

    A repeat attains a point if some point of the repeat's front is at least as good in all
    objectives (Grunert da Fonseca, Fonseca & Hall 2001).
    """
    repeats: dict[int, list[list[float]]] = {}
    for row in rows:
        values = [row["accuracies"][name] for name in objectives]
        repeats.setdefault(row["repeat"], []).append(values)
    n_whole = max((len(values) for values in repeats.values()), default=0)
    whole = [values for values in repeats.values() if len(values) == n_whole]
    return Attainment(
        n_repeats=len(whole),
        n_left_out=len(repeats) - len(whole),
        surfaces=_surfaces(whole) if whole and len(objectives) <= MAX_OBJECTIVES else (),
    )


def _surfaces(repeats: Sequence[Sequence[Sequence[float]]]) -> tuple[Surface, ...]:
    values = np.array([value for repeat in repeats for value in repeat])
    sets = np.repeat(np.arange(len(repeats)), len(repeats[0]))
    # moocore minimises; its last column is the percentage of repeats.
    attained = moocore.eaf(-values, sets)
    n_attaining = np.rint(attained[:, -1] * len(repeats) / 100).astype(int)
    return tuple(
        Surface(n_repeats=n, values=_sorted(-attained[n_attaining == n, :-1]))
        for n in range(1, len(repeats) + 1)
    )


def _sorted(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.lexsort(values.T[::-1])]


def spreads(folder: Path, front: Front) -> dict[str, dict[str, Any]]:
    """By point and objective, the mean and sample standard deviation over the repeats of a point.

    Points of which the sweep in `folder` has no repeats are left out; the deviation of a single
    repeat is None.
    """
    repeated: dict[tuple[str, Released], list[Mapping[str, float]]] = {}
    for row in read_if_intact(SweepFolder(folder).repeats).get("repeats", []):
        key = row["trial"], as_released(row["mixing_ratio"])
        repeated.setdefault(key, []).append(row["accuracies"])
    return {
        point.name: {name: _spread([row[name] for row in rows]) for name in front.objectives}
        for point in front.points
        if (rows := repeated.get((point.trial, point.mixing_ratio)))
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "values": list(values)}
