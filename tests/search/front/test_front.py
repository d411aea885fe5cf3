"""Law 5: the front and its hypervolume."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from search.front.front import Front, hypervolume, non_dominated
from search.front.pick import pick
from tests.helpers.points import OBJECTIVES, point


def dominated_by_definition(values: np.ndarray) -> np.ndarray:
    """A row is dominated by one that is nowhere worse and somewhere better."""
    at_least = (values[None] >= values[:, None]).all(2)
    better = (values[None] > values[:, None]).any(2)
    return (at_least & better).any(1)


def area_by_steps(values: np.ndarray) -> float:
    """The area under the staircase of a two-objective set."""
    area, height = 0.0, 0.0
    for x, y in sorted(values.tolist(), reverse=True):
        area += x * max(0.0, y - height)
        height = max(height, y)
    return area


CLOUDS = [
    np.round(np.random.default_rng(seed).random((n, m)), 1)
    for seed, (n, m) in enumerate([(1, 2), (7, 2), (60, 2), (40, 3), (30, 4)])
]


@pytest.mark.parametrize("values", CLOUDS, ids=lambda v: str(v.shape))
class TestNonDominated:
    def test_it_is_the_definition_with_duplicates_kept_once(self, values: np.ndarray) -> None:
        kept = values[non_dominated(values)]
        expected = np.unique(values[~dominated_by_definition(values)], axis=0)
        np.testing.assert_array_equal(np.unique(kept, axis=0), expected)
        assert len(kept) == len(expected)

    def test_order_and_duplicates_change_nothing(self, values: np.ndarray) -> None:
        shuffled = np.random.default_rng(9).permutation(np.concatenate([values, values]))
        kept, again = values[non_dominated(values)], shuffled[non_dominated(shuffled)]
        np.testing.assert_array_equal(np.unique(kept, axis=0), np.unique(again, axis=0))
        assert hypervolume(values) == pytest.approx(hypervolume(shuffled), abs=1e-15)

    def test_hypervolume_never_falls_when_a_point_is_added(self, values: np.ndarray) -> None:
        volumes = [hypervolume(values[: n + 1]) for n in range(len(values))]
        assert all(b >= a - 1e-15 for a, b in itertools.pairwise(volumes))


def test_hypervolume_of_two_objectives_is_the_area_under_the_staircase() -> None:
    values = np.random.default_rng(3).random((50, 2))
    assert hypervolume(values) == pytest.approx(area_by_steps(values), abs=1e-14)


def test_a_reference_point_cuts_off_what_lies_below_it() -> None:
    values = np.array([[0.9, 0.4], [0.7, 0.6], [0.3, 0.9]])
    assert hypervolume(values, [0.5, 0.0]) == pytest.approx(0.4 * 0.4 + 0.2 * 0.2)


def test_the_front_of_no_points_is_empty_and_has_hypervolume_0() -> None:
    front = Front.of([], OBJECTIVES)
    assert front.points == ()
    assert front.hypervolume == 0


def test_the_front_is_ordered_by_its_first_objective() -> None:
    points = [point(0.9, 0.3), point(0.7, 0.6), point(0.6, 0.5), point(0.8, 0.4)]
    assert [p.accuracies["natural"] for p in Front.of(points, OBJECTIVES).points] == [0.7, 0.8, 0.9]


def test_points_are_alike_if_their_intervals_overlap_in_every_objective() -> None:
    apart = Front.of([point(0.9, 0.3), point(0.7, 0.6, "0001")], OBJECTIVES)
    assert [apart.alike(p) for p in apart.points] == [[], []]
    close = Front.of([point(0.9, 0.3), point(0.89, 0.31, "0001")], OBJECTIVES)
    worse, better = (p.name for p in close.points)
    assert [close.alike(p) for p in close.points] == [[better], [worse]]
    assert close.alike(point(0.89, 0.3, "0002")) == [worse, better]
    few = [point(0.9, 0.3, n_images=5), point(0.6, 0.6, "0001", n_images=5)]
    front = Front.of(few, OBJECTIVES)
    assert all(front.alike(p) for p in front.points)


def test_a_front_and_its_points_are_short_in_a_console_and_tables_in_a_notebook() -> None:
    names = ("natural", "<script>")
    points = [
        dataclasses.replace(point(x, y), accuracies=dict(zip(names, (x, y), strict=True)))
        for x, y in ((0.9, 0.3), (0.8, 0.5))
    ]
    front = Front.of(points, names)
    assert repr(front) == "<Front of 2 points in natural, <script>: hypervolume 0.4300>"
    assert repr(points[0]) == "<FrontPoint 0000-0.5: natural 90.0 %, <script> 30.0 %>"
    picked = pick(front, "knee")
    for shown, n_points in ((front, 2), (points[0], 1), (picked, 1)):
        table = shown._repr_html_()
        assert table.count("<tr>") == 1 + n_points
        assert "<script>" not in table
        assert "0000-0.5" in table
    assert "80.0 [76.2, 83.4]" in front._repr_html_()
