"""Stopping rules on simulated learning curves."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.early_stopping import EPOCHS, N_FULL_TRIALS, RATIOS, RULES, Curve, check, run


def test_the_rule_decides_as_single_objective_halving() -> None:
    check(n_results=60)


def test_curves_rise_and_stay_within_their_quality() -> None:
    for seed in range(20):
        curve = Curve.of(np.random.default_rng(seed))
        points = np.stack([curve.at(epoch, np.linspace(0, 1, 5)) for epoch in range(EPOCHS + 1)])
        assert (np.diff(points, axis=0) >= 0).all()
        assert np.linalg.norm(points, axis=2).max() <= curve.quality


@pytest.mark.parametrize("rule", RULES)
def test_equal_seeds_give_equal_results_within_the_budget(rule: str) -> None:
    ratios = RATIOS["one point per trial"]
    first, same = (run(RULES[rule](3), 3, ratios) for _ in range(2))
    assert first == same
    hypervolume, n_begun, n_completed = first
    assert 0 < hypervolume < 1
    assert n_completed <= min(n_begun, N_FULL_TRIALS)


def test_only_without_stopping_all_trials_are_completed() -> None:
    ratios = RATIOS["one point per trial"]
    n_begun = {name: run(make(0), 0, ratios)[1] for name, make in RULES.items()}
    assert n_begun["no stopping"] == N_FULL_TRIALS
    assert all(n > N_FULL_TRIALS for name, n in n_begun.items() if name != "no stopping")
