"""The ranking of a population."""

from __future__ import annotations

import numpy as np

from benchmarks.population import ranked


def test_fronts_come_in_order_and_what_is_far_from_the_others_first() -> None:
    """The second front, of one row, comes last though it is far from all."""
    values = np.array([[0.9, 0.1], [0.5, 0.5], [0.52, 0.49], [0.1, 0.9], [0.05, 0.05]])
    order = ranked(values, np.random.default_rng(0))
    assert set(order[:2]) == {0, 3}
    assert order[2] in (1, 2)
    assert order[4] == 4
