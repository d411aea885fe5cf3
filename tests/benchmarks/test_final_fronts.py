"""Intervals of final fronts, by bootstrap over seeds and images."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.final_fronts import interval, measures


def judged(natural: float, attacked: float, n_images: int) -> np.ndarray:
    """One model that is right on these fractions of the images."""
    order = np.arange(n_images) / n_images
    return np.array([[order < natural, order < attacked]])


def test_measures_are_hypervolumes_above_two_references() -> None:
    assert measures(judged(0.8, 0.5, 100), 0.6) == pytest.approx([0.4, 0.1])


def test_an_interval_is_that_of_binomial_counts() -> None:
    """With one seed and always right under no attack, the hypervolume is a mean of images."""
    low, mean, high = interval([judged(1.0, 0.5, 400)], [0.0])
    assert mean[0] == pytest.approx(0.5)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)


def test_seeds_that_differ_widen_the_interval() -> None:
    one, other = judged(1.0, 0.3, 400), judged(1.0, 0.7, 400)
    low, mean, high = interval([one, other], [0.0, 0.0])
    assert mean[0] == pytest.approx(0.5)
    assert low[0] < 0.32
    assert high[0] > 0.68
