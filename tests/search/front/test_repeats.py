"""Repeats of a front: what they attain, and how much a point varies."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.files import write_sealed_json
from search.folders import SweepFolder
from search.front.front import Front
from search.front.repeats import attainment, spreads
from tests.helpers.points import OBJECTIVES, point


def rows_of(fronts: np.ndarray) -> list[dict[str, Any]]:
    """The rows of `repeats.json` for fronts (repeats, points, 2)."""
    return [
        {"repeat": repeat, "accuracies": dict(zip(OBJECTIVES, values, strict=True))}
        for repeat, front in enumerate(fronts.tolist(), 1)
        for values in front
    ]


def test_attainment_is_that_of_its_definition() -> None:
    """Two repeats of two points each, by hand: the best of the union, and what both reach."""
    values = {1: [(0.8, 0.5), (0.9, 0.3)], 2: [(0.7, 0.6), (0.85, 0.4)], 3: [(0.1, 0.1)]}
    rows = [
        {"repeat": repeat, "accuracies": dict(zip(OBJECTIVES, point, strict=True))}
        for repeat, points in values.items()
        for point in points
    ]
    found = attainment(rows, OBJECTIVES)
    assert (found.n_repeats, found.n_left_out) == (2, 1)
    one, both = (surface.values.tolist() for surface in found.surfaces)
    assert one == [[0.7, 0.6], [0.8, 0.5], [0.85, 0.4], [0.9, 0.3]]
    assert both == [[0.7, 0.5], [0.8, 0.4], [0.85, 0.3]]


@pytest.mark.parametrize("seed", range(5))
def test_a_value_is_in_a_surface_if_so_many_repeats_attain_it(seed: int) -> None:
    """The definition, on all pairs of accuracies that occur."""
    fronts = np.random.default_rng(seed).integers(0, 6, (4, 5, 2)) / 6
    surfaces = attainment(rows_of(fronts), OBJECTIVES).surfaces
    assert [surface.n_repeats for surface in surfaces] == [1, 2, 3, 4]
    for value in itertools.product(*(np.unique(fronts[..., i]) for i in range(2))):
        n_attaining = (fronts >= value).all(2).any(1).sum()
        for surface in surfaces:
            is_below = (surface.values >= value).all(1).any()
            assert is_below == (n_attaining >= surface.n_repeats)


def test_a_repeat_in_which_a_training_failed_is_left_out() -> None:
    rows = rows_of(np.full((3, 2, 2), 0.5))[:-1]
    found = attainment(rows, OBJECTIVES)
    assert (found.n_repeats, found.n_left_out) == (2, 1)
    assert attainment([], OBJECTIVES).surfaces == ()


def test_with_four_objectives_there_are_repeats_but_no_surfaces() -> None:
    names = ("natural", "linf", "l2", "l1")
    rows = [{"repeat": n, "accuracies": dict.fromkeys(names, 0.5)} for n in (1, 2)]
    found = attainment(rows, names)
    assert (found.n_repeats, found.surfaces) == (2, ())


@pytest.mark.parametrize("ratio", [0.5, (0.2, 0.3, 0.5)])
def test_the_spread_is_that_over_the_repeats_of_a_point(ratio: Any, tmp_path: Path) -> None:
    wanted = dataclasses.replace(point(0.9, 0.3), mixing_ratio=ratio)
    front = Front.of([wanted], OBJECTIVES)
    assert spreads(tmp_path, front) == {}
    values = [0.5, 0.75, 0.625]
    rows = [
        {
            "trial": "0000",
            "repeat": repeat,
            "mixing_ratio": ratio,
            "accuracies": {"natural": value, "robust": 0.25},
        }
        for repeat, value in enumerate(values, 1)
    ]
    rows = [*rows, {**rows[0], "trial": "0001"}]
    write_sealed_json(SweepFolder(tmp_path).repeats, {"repeats": rows})
    found = spreads(tmp_path, front)[wanted.name]
    assert found["natural"] == {
        "mean": pytest.approx(0.625),
        "std": pytest.approx(statistics.stdev(values)),
        "values": values,
    }
    assert found["robust"]["std"] == 0
    other = dataclasses.replace(wanted, trial="0002")
    assert spreads(tmp_path, Front.of([other], OBJECTIVES)) == {}
    single = dataclasses.replace(wanted, trial="0001")
    assert spreads(tmp_path, Front.of([single], OBJECTIVES))[single.name]["natural"]["std"] is None
