"""Shares of re-draws, where they are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from search.front.front import Front
from search.front.redraws import N_DRAWS, kept_shares, picked_share, redraws
from tests.helpers.points import OBJECTIVES, point

FAR = [point(0.9, 0.1, "0000"), point(0.6, 0.4, "0001"), point(0.3, 0.29, "0002")]


def test_accuracies_are_redrawn_from_their_binomials() -> None:
    points = [point(0.9, 0.4), point(0.5, 0.5), point(0.0, 0.0), point(1.0, 1.0)]
    drawn = np.stack(list(redraws(points, OBJECTIVES)))
    assert drawn.shape == (N_DRAWS, 4, 2)
    assert (drawn[..., 1] <= drawn[..., 0]).all()
    given = np.array([[p.accuracies[name] for name in OBJECTIVES] for p in points])
    deviation = np.sqrt(given * (1 - given) / 500)
    np.testing.assert_allclose(drawn.mean(0), given, atol=4 * deviation.max() / N_DRAWS**0.5)
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.2)
    assert np.array_equal(drawn, np.stack(list(redraws(points, OBJECTIVES))))


def test_points_far_apart_stay_and_dominated_ones_do_not_matter() -> None:
    front = Front.of(FAR, OBJECTIVES)
    assert kept_shares(front, FAR) == {"0000-0.5": 1.0, "0001-0.5": 1.0}
    assert kept_shares(Front.of([], OBJECTIVES), []) == {}


def test_of_two_points_that_differ_in_one_image_each_the_share_is_that_of_the_binomials() -> None:
    """Robust accuracies of 0 and natural ones alike: kept if no fewer images are right."""
    points = [point(0.5, 0.0, "0000", n_images=20), point(0.45, 0.0, "0001", n_images=20)]
    front = Front.of(points, OBJECTIVES)
    hits = np.arange(21)
    better = binom.pmf(hits, 20, 0.5) @ binom.cdf(hits, 20, 0.45)
    assert kept_shares(front, points)["0000-0.5"] == pytest.approx(better, abs=0.12)


def test_a_rule_picks_the_same_of_points_that_are_far_apart() -> None:
    front = Front.of(FAR, OBJECTIVES)
    assert picked_share(front, FAR, "max robust") == 1.0
    alike = [*FAR, point(0.599, 0.402, "0003")]
    assert 0.2 < picked_share(Front.of(alike, OBJECTIVES), alike, "max robust") < 0.8
    on_the_bound = picked_share(front, FAR, "robust>=0.4")
    assert 0.3 < on_the_bound < 0.7  # where no point reaches it, none is picked
