"""What the repeats of a front attain: the empirical attainment function."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from search.files import read_json
from search.front.points import FrontPoint


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The best values, (points, objectives), that `n_repeats` of all repeats reach or exceed."""

    n_repeats: int
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attainment:
    """The attainment surfaces, from that of one repeat to that of all, over whole repeats.

    A repeat in which a training failed is left out: its front would lack a part.
    """

    n_repeats: int
    n_left_out: int
    surfaces: tuple[Surface, ...]


def attainment(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> Attainment:
    """The attainment of repeats, the rows of `repeats.json`.

    Grunert da Fonseca, Fonseca & Hall (2001): a point is attained by a repeat if some point of the
    repeat's front is at least as good in all objectives.
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
        surfaces=_surfaces(whole) if whole else (),
    )


def _surfaces(repeats: Sequence[Sequence[Sequence[float]]]) -> tuple[Surface, ...]:
    values = np.array([value for repeat in repeats for value in repeat])
    sets = np.repeat(np.arange(len(repeats)), len(repeats[0]))
    found = moocore.eaf(-values, sets)
    n_attaining = np.rint(found[:, -1] * len(repeats) / 100).astype(int)
    return tuple(
        Surface(n_repeats=n, values=_sorted(-found[n_attaining == n, :-1]))
        for n in range(1, len(repeats) + 1)
    )


def _sorted(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.lexsort(values.T[::-1])]


REPEATS = "repeats.json"


def spreads(folder: Path, point: FrontPoint, objectives: Sequence[str]) -> Mapping[str, Any] | None:
    """Mean and sample standard deviation over the repeats of a point; None if there are none."""
    if not (folder / REPEATS).is_file():
        return None
    ratio = (
        list(point.mixing_ratio) if isinstance(point.mixing_ratio, tuple) else point.mixing_ratio
    )
    wanted = (point.trial, ratio)
    rows = [
        row for row in read_json(folder / REPEATS) if (row["trial"], row["mixing_ratio"]) == wanted
    ]
    if not rows:
        return None
    return {name: _spread([row["accuracies"][name] for row in rows]) for name in objectives}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "values": list(values)}
