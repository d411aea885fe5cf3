"""Which mixtures are looked at: the law of refinement, on curves by formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import moocore
import numpy as np
import pytest
from numpy.typing import NDArray

from generalist_core.config import Ratio, as_weights
from generalist_core.config.norms import corners_and_centre
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.release import between_several, hypervolume, is_empty, refined, room

Curve = Callable[[float], tuple[float, ...]]


def arc(ratio: float) -> tuple[float, float]:
    """A concave trade-off, steep at both ends alike."""
    return math.cos(ratio * math.pi / 2), math.sin(ratio * math.pi / 2)


def late(ratio: float) -> tuple[float, float]:
    """All of the trade-off lies beyond 0.5."""
    beyond = max(0.0, 2 * ratio - 1)
    return 1 - beyond, beyond


def flat(_: float) -> tuple[float, float]:
    return 0.7, 0.4


def only_robust(ratio: float) -> tuple[float, float]:
    """One objective is constant: no point adds to the better end."""
    return 0.7, ratio


def three_objectives(ratio: float) -> tuple[float, ...]:
    return 1 - ratio, ratio, ratio**2


CURVES: dict[str, Curve] = {
    "arc": arc,
    "late": late,
    "flat": flat,
    "only robust": only_robust,
    "three objectives": three_objectives,
}


def point(ratio: Ratio, curve: Curve, n_images: int = 10**6) -> OperatingPoint:
    values = curve(as_weights(ratio, 2)[1])
    accuracies = {f"objective{i}": value for i, value in enumerate(values)}
    return OperatingPoint(mixing_ratio=ratio, accuracies=accuracies, n_images=n_images, epoch=9)


def released(
    curve: Curve, ratios: Sequence[Ratio] = (0.0, 0.5, 1.0), n: int = 3, n_images: int = 10**6
) -> list[Ratio]:
    """The ratios of the refined points."""
    return [p.mixing_ratio for p in refined(lambda ratio: point(ratio, curve, n_images), ratios, n)]


def roomiest(known: Sequence[float], curve: Curve) -> float:
    """The middle of the neighbours with the most room, by definition."""
    pairs = list(itertools.pairwise(sorted(known)))
    rooms = [
        math.prod(abs(a - b) for a, b in zip(curve(left), curve(right), strict=True))
        for left, right in pairs
    ]
    left, right = pairs[int(np.argmax(rooms))]
    return round((left + right) / 2, 12)


@pytest.mark.parametrize("curve", [arc, late, three_objectives])
@pytest.mark.parametrize("ratios", [(0.0, 1.0), (0.0, 0.5, 1.0), (0.9, 0.1, 0.33)])
def test_each_refinement_is_where_the_most_room_is(curve: Curve, ratios: tuple[float]) -> None:
    known = list(ratios)
    for _ in range(6):
        known.append(roomiest(known, curve))
    assert released(curve, ratios, n=6) == known


def test_room_is_the_product_of_the_differences() -> None:
    a, b = point(0.0, late), point(0.75, late)
    assert room(a, b) == room(b, a) == 0.5 * 0.5
    assert room(a, a) == 0.0


def test_a_late_trade_off_is_refined_late() -> None:
    assert released(late) == [0.0, 0.5, 1.0, 0.75, 0.625, 0.875]


@pytest.mark.parametrize("curve", [flat, only_robust])
def test_where_nothing_can_be_won_nothing_is_refined(curve: Curve) -> None:
    assert released(curve) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("n_images", "n"), [(3, 1), (4, 3), (15, 3), (16, 7), (63, 7), (64, 15)])
def test_refinement_ends_when_no_room_is_as_large_as_an_image(n_images: int, n: int) -> None:
    """On a line from (1, 0) to (0, 1) the rooms are 1, then 1/4 each, then 1/16, ..."""
    ratios = released(lambda ratio: (1 - ratio, ratio), (0.0, 1.0), 100, n_images)
    assert len(ratios) == 2 + n


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("n", [0, 1, 5, 20])
def test_no_ratio_is_released_twice_and_none_beyond_the_number(curve: Curve, n: int) -> None:
    ratios = released(curve, n=n)
    assert len(set(ratios)) == len(ratios) <= 3 + n
    assert all(0 <= as_weights(ratio, 2)[1] <= 1 for ratio in ratios)


@pytest.mark.parametrize("ratio", [0.0, 0.37, (0.2, 0.8)])
def test_one_ratio_gives_one_point(ratio: Ratio) -> None:
    assert released(arc, [ratio]) == [ratio]


@pytest.mark.parametrize("n", [0, 2])
def test_given_ratios_come_first_and_in_their_order(n: int) -> None:
    ratios: list[Ratio] = [0.8, (1.0, 0.0), 0.37, 1.0]
    assert released(arc, ratios, n=n)[:4] == ratios
    assert len(released(arc, ratios, n=n)) == 4 + n


def test_equal_ratios_leave_no_room_between_them() -> None:
    assert released(arc, [0.5, 0.5, (0.5, 0.5)]) == [0.5, 0.5, (0.5, 0.5)]


# More than two experts


def on_simplex(
    ratio: Ratio, values: Callable[[NDArray[np.float64]], Sequence[float]], n_images: int = 10**6
) -> OperatingPoint:
    accuracies = {f"objective{i}": v for i, v in enumerate(values(np.array(ratio)))}
    return OperatingPoint(mixing_ratio=ratio, accuracies=accuracies, n_images=n_images, epoch=9)


def linear(weights: NDArray[np.float64]) -> Sequence[float]:
    """Each expert is the only one that is good in its objective."""
    return [float(weight) for weight in weights]


def two_of_three(weights: NDArray[np.float64]) -> Sequence[float]:
    """The third expert is good for nothing: all of the front lies between the first two."""
    natural, robust, _ = map(float, weights)
    return [natural, robust]


def sphere(weights: NDArray[np.float64]) -> Sequence[float]:
    return [math.sqrt(float(weight)) for weight in weights]


@pytest.mark.parametrize("n_objectives", [2, 3, 4])
@pytest.mark.parametrize("n_points", [1, 2, 7])
def test_the_hypervolume_is_that_of_moocore(n_points: int, n_objectives: int) -> None:
    values = np.random.default_rng(n_points).random((n_points, n_objectives)).round(1)
    expected = moocore.hypervolume(values, ref=[0.0] * n_objectives, maximise=True)
    assert hypervolume(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("corners", "empty"),
    [
        *[([0, 1], False), ([0, 3], True), ([0, 2], True), ([2, 3], True)],
        *[([0, 1, 2], False), ([0, 2, 3], True), ([0, 1, 3], False)],
    ],
)
def test_a_segment_or_triangle_is_empty_if_no_other_point_is_in_it(
    corners: list[int], empty: bool
) -> None:
    """Three corners and the middle of the first two, which are on a line with it."""
    weights = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0)])
    assert is_empty(weights, corners) == empty


def test_a_front_between_two_experts_is_refined_between_them() -> None:
    corners = corners_and_centre(3)[:3]
    points = refined(lambda ratio: on_simplex(ratio, two_of_three), corners, 3)
    found = {point.mixing_ratio for point in points[3:]}
    assert found == {(0.5, 0.5, 0.0), (0.75, 0.25, 0.0), (0.25, 0.75, 0.0)}


def test_a_triangle_is_refined_where_all_three_experts_matter() -> None:
    points = [on_simplex(ratio, linear) for ratio in corners_and_centre(3)[:3]]
    assert between_several(points) == pytest.approx((1 / 3,) * 3, abs=2e-6)


@pytest.mark.parametrize("n_experts", [3, 4])
@pytest.mark.parametrize("curve", [linear, sphere])
def test_each_refinement_adds_a_new_ratio_and_hypervolume(
    n_experts: int, curve: Callable[[NDArray[np.float64]], Sequence[float]]
) -> None:
    points = refined(lambda ratio: on_simplex(ratio, curve), corners_and_centre(n_experts), 5)
    ratios = [as_weights(point.mixing_ratio, n_experts) for point in points]
    assert len(set(ratios)) == len(points) == n_experts + 6
    values = np.array([list(point.accuracies.values()) for point in points])
    volumes = [hypervolume(values[:n]) for n in range(n_experts + 1, len(points) + 1)]
    assert all(after > before for before, after in pairwise(volumes))


def test_the_order_of_experts_does_not_matter() -> None:
    """Neither do their names: the refined ratios of reordered experts are the reordered ones."""

    def lopsided(weights: NDArray[np.float64]) -> Sequence[float]:
        a, b, c = map(float, weights)
        return [a**0.5, 0.8 * b + 0.1 * c, 0.3 * b + 0.5 * c]

    order = [2, 0, 1]
    plain = refined(lambda ratio: on_simplex(ratio, lopsided), corners_and_centre(3), 4)
    other = refined(
        lambda ratio: on_simplex(ratio, lambda weights: lopsided(weights[order])),
        corners_and_centre(3),
        4,
    )
    for a, b in zip(plain[4:], other[4:], strict=True):
        assert np.array(b.mixing_ratio)[order] == pytest.approx(np.array(a.mixing_ratio), abs=1e-5)


def test_where_a_simplex_promises_less_than_an_image_nothing_is_refined() -> None:
    points = refined(lambda ratio: on_simplex(ratio, linear, 8), corners_and_centre(3)[:3], 9)
    assert len(points) == 4
    flat = refined(lambda ratio: on_simplex(ratio, lambda _: [0.5, 0.5]), corners_and_centre(3), 9)
    assert len(flat) == 4
