"""One point of a front, by rules with known answers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from generalist_core.config.mixing import GLOBAL, Released
from generalist_core.validation import InvalidConfigError
from search.front.front import Front
from search.front.pick import is_rule, pick
from search.front.points import FrontPoint

NAMES = ("natural", "robust", "l2")


def points_of(values: Sequence[Sequence[float]], n_images: int = 10_000) -> list[FrontPoint]:
    """Points of trials 0000, 0001, ... with these accuracies, each at mixing ratio 0.5."""
    return [
        FrontPoint(
            trial=f"{number:04d}",
            mixing_ratio=0.5,
            accuracies=dict(zip(NAMES, row, strict=False)),
            n_images=n_images,
            epoch=16,
            config={},
        )
        for number, row in enumerate(values)
    ]


def front_of(
    values: Sequence[Sequence[float]], reference: tuple[float, ...] | None = None
) -> Front:
    return Front.of(points_of(values), NAMES[: len(values[0])], reference)


BENT = [(0.2, 0.9), (0.7, 0.8), (0.8, 0.3), (0.9, 0.1)]
HOLLOW = [(0.2, 0.9), (0.3, 0.4), (0.9, 0.3)]
SOLID = [(0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9), (0.5, 0.6, 0.5), (0.3, 0.3, 0.3)]

ANSWERS = {
    "one point": ([(0.3, 0.4)], "knee", "0000"),
    "of two the larger product": ([(0.9, 0.3), (0.7, 0.6)], "knee", "0001"),
    "the corner": (BENT, "knee", "0001"),
    "no corner": (HOLLOW, "knee", "0002"),
    "three objectives": (SOLID, "knee", "0003"),
    "an objective that is the same for all": ([(0.5, 0.2), (0.5, 0.4)], "knee", "0001"),
    "best of the rest": (BENT, "natural>=0.75", "0002"),
    "exactly reached": (BENT, "natural >= 0.8", "0002"),
    "two bounds": (BENT, "natural>=0.5, robust>=0.3", "0001"),
    "three objectives, one bound": (SOLID, "natural>=0.2", "0003"),
    "three objectives, two bounds": (SOLID, "natural>=0.05,robust>=0.05", "0002"),
    "max": (BENT, "max robust", "0000"),
    "max of the other": (BENT, "max  natural", "0003"),
    "weights": (BENT, "natural=0.3,robust=0.7", "0001"),
    "one weight": (BENT, "natural=2", "0003"),
    "by name": (BENT, "0002-0.5", "0002"),
    "by number": (BENT, "2-0.5", "0002"),
    "typed with a colon": (BENT, "0002:0.5", "0002"),
}


@pytest.mark.parametrize(("values", "spec", "trial"), ANSWERS.values(), ids=ANSWERS)
def test_the_point_is_the_known_one(values: list[tuple[float, ...]], spec: str, trial: str) -> None:
    picked = pick(front_of(values), spec)
    assert picked.point.trial == trial
    assert picked.reason.endswith(".")


@pytest.mark.parametrize("values", [BENT, HOLLOW, SOLID], ids=["bent", "hollow", "solid"])
@pytest.mark.parametrize("spec", ["knee", "max robust", "robust>=0.3", "natural=1,robust=1"])
def test_neither_order_nor_dominated_points_matter(
    values: list[tuple[float, ...]], spec: str
) -> None:
    expected = pick(front_of(values), spec)
    worse = [tuple(0.9 * value for value in row) for row in values]
    for order in itertools.islice(itertools.permutations(range(len(values))), 0, None, 11):
        points = points_of(values + worse)
        shuffled = [points[index] for index in (*reversed(range(len(values), len(points))), *order)]
        assert pick(Front.of(shuffled, NAMES[: len(values[0])]), spec) == expected


@pytest.mark.parametrize("values", [BENT, HOLLOW, SOLID], ids=["bent", "hollow", "solid"])
def test_the_knee_does_not_depend_on_the_scale_of_an_objective(
    values: list[tuple[float, ...]],
) -> None:
    expected = pick(front_of(values), "knee").point.trial
    for objective in range(len(values[0])):
        scaled = np.array(values)
        scaled[:, objective] *= 0.1
        assert pick(front_of(scaled.tolist()), "knee").point.trial == expected


def test_the_knee_is_farthest_from_the_line_by_another_formula() -> None:
    for seed in range(20):
        angles = np.sort(np.random.default_rng(seed).uniform(0, np.pi / 2, 12))
        values = np.stack([0.2 + 0.6 * np.sin(angles), 0.1 + 0.3 * np.cos(angles)], axis=1)
        scaled = (values - values.min(0)) / np.ptp(values, axis=0)
        first, last = scaled[0], scaled[-1]
        along = (last - first) / np.linalg.norm(last - first)
        across = scaled - first - ((scaled - first) @ along)[:, None] * along
        distances = np.linalg.norm(across, axis=1)
        picked = pick(front_of(values.tolist()), "knee")
        assert int(picked.point.trial) == distances.argmax()
        assert f"{distances.max():.2f} above the line" in picked.reason


def test_in_a_region_of_interest_the_knee_is_of_the_region() -> None:
    assert pick(front_of(BENT, (0.75, 0.0)), "knee").point.trial == "0002"
    assert "only point in the region" in pick(front_of(BENT, (0.85, 0.0)), "knee").reason
    assert pick(front_of(BENT, (0.95, 0.0)), "knee").point.trial == "0001"


def test_the_reason_says_how_sure_it_is() -> None:
    points = points_of([(0.7, 0.8), (0.72, 0.79), (0.9, 0.1)], n_images=100)
    picked = pick(Front.of(points, NAMES[:2]), "max robust")
    assert picked.reason.endswith("1 other of the front cannot be told from it on 100 images.")
    one = pick(front_of(BENT[:1]), "natural>=0")
    assert one.reason == "The largest robust where natural>=0, reached by 1 of 1 point."
    assert pick(front_of(BENT), "max robust").reason == "The largest robust accuracy on the front."


RATIOS: list[Released] = [0.0, 0.123456, 0.5, 1.0, 1e-05, (0.2, 0.3, 0.5), GLOBAL]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("0", 0),
        ("0.123", 1),
        ("0.123456", 1),
        ("0.50", 2),
        ("1.", 3),
        ("1e-05", 4),
        ("1E-5", 4),
        ("0.00001", 4),
        ("0.2-0.3-0.5", 5),
        ("0.2-3e-1-.5", 5),
        ("global", 6),
        ("GLOBAL", 6),
    ],
)
def test_a_ratio_is_found_as_it_is_printed_and_exactly(text: str, index: int) -> None:
    (point,) = points_of([(0.5, 0.5)])
    released = [dataclasses.replace(point, mixing_ratio=ratio) for ratio in RATIOS]
    front = Front.of(released, NAMES[:2])
    for sign in "-:":
        assert pick(front, f"0{sign}{text}", released).point.mixing_ratio == RATIOS[index]


def test_every_point_is_found_by_its_name() -> None:
    (point,) = points_of([(0.5, 0.5)])
    close = [*RATIOS, 0.5000004, 0.9999999, 0.1 + 0.2, 3.84e-05, 1e-300]
    released = [dataclasses.replace(point, mixing_ratio=ratio) for ratio in close]
    front = Front.of(released, NAMES[:2])
    assert [pick(front, point.name, released).point for point in released] == released


def test_a_rounded_ratio_that_two_points_have_is_refused() -> None:
    (point,) = points_of([(0.5, 0.5)])
    released = [dataclasses.replace(point, mixing_ratio=ratio) for ratio in (0.12344, 0.12341)]
    front = Front.of(released, NAMES[:2])
    with pytest.raises(
        InvalidConfigError, match=r"0000-0\.12344 or 0000-0\.12341\. Give the whole"
    ):
        pick(front, "0-0.123", released)
    assert pick(front, "0-0.12341", released).point == released[1]
    assert pick(front, "0-1.2341e-1", released).point == released[1]


def test_a_point_off_the_front_is_given_with_one_that_is_as_good() -> None:
    points = points_of([*BENT, (0.6, 0.7)])
    picked = pick(Front.of(points, NAMES[:2]), "4-0.5", points)
    assert picked.point.trial == "0004"
    assert "not on the front: 0001-0.5 is as good or better" in picked.reason


BAD = {
    "too much": ("natural>=0.95", "best natural is 0.9, of 0003-0.5"),
    "too much together": ("natural>=0.8,robust>=0.5", "with robust>=0.5 the best natural is 0.7"),
    "in percent": ("natural>=85", "did you mean 0.85"),
    "unknown in a bound": ("robus>=0.5", "natural, robust.*'robus'"),
    "unknown in max": ("max robus", "natural, robust.*'robus'"),
    "unknown in weights": ("robus=1", "natural, robust.*'robus'"),
    "negative weight": ("natural=-1,robust=1", r"min\(weights\) >= 0"),
    "no weight": ("natural=0", r"sum\(weights\) > 0"),
    "no number": ("natural>=high", "'natural>=0.85'.*natural>=high"),
    "not a number": ("natural>=nan", "TRIAL-RATIO"),
    "twice": ("natural=1,natural=2", "TRIAL-RATIO"),
    "half": ("natural>=0.5,", "TRIAL-RATIO"),
    "no rule": ("elbow", "TRIAL-RATIO.*'elbow'"),
    "empty": ("", "TRIAL-RATIO.*''"),
    "no such trial": ("9-0.5", "9.*0000, 0001, 0002, 0003"),
    "no such ratio": ("0-0.7", "0.7.*0000 released 0.5"),
    "no ratio at all": ("0-", "TRIAL-RATIO"),
    "half an exponent": ("0-1e", "TRIAL-RATIO"),
    "no global learner": ("0-global", "0000 released 0.5"),
    "half a name": ("0-glob", "TRIAL-global"),
    "other weights": ("0-0.5-0.5", "0000 released 0.5"),
}


@pytest.mark.parametrize(("spec", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_picked_is_refused_with_the_cure(spec: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        pick(front_of(BENT), spec)


def test_an_empty_front_has_no_point_to_pick() -> None:
    with pytest.raises(InvalidConfigError, match="no trial has completed"):
        pick(Front.of([], NAMES[:2]), "knee")


def test_a_row_of_the_table_is_counted_from_1() -> None:
    front = front_of(BENT)
    for number, point in enumerate(front.points, 1):
        assert pick(front, f" {number} ").point == point
        assert not is_rule(str(number))
    with pytest.raises(InvalidConfigError, match="one of the front's 4, but got 5"):
        pick(front, "5")
    assert is_rule("knee")
    assert not is_rule("0004-0.5")
