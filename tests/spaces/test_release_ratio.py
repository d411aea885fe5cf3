"""Ratios as parameters: the two forms convert into each other."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from scipy.stats import beta, chisquare, kstest

from generalist_core.config import Ratio, as_weights
from spaces.release_ratio import nearest, ratio_params, suggest_ratio


@pytest.mark.parametrize("n_experts", [2, 3, 4])
def test_every_suggestion_is_a_ratio_and_its_parameters_suggest_it(n_experts: int) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        ratio = suggest_ratio(trial, n_experts)
        assert sum(as_weights(ratio, n_experts)) == pytest.approx(1)
        assert ratio == suggest_ratio(optuna.trial.FixedTrial(trial.params), n_experts)
        weights = as_weights(ratio, n_experts)
        assert weights == pytest.approx([round(weight, 6) for weight in weights], abs=1e-12)
        params = ratio_params(ratio, n_experts)
        assert params.keys() == trial.params.keys()
        assert suggest_ratio(optuna.trial.FixedTrial(params), n_experts) == ratio


@pytest.mark.parametrize(
    ("ratio", "n_experts"),
    [(0.0, 2), (0.3, 2), (1.0, 2), ((0.2, 0.5, 0.3), 3)]
    + [(tuple(float(i == corner) for i in range(4)), 4) for corner in range(4)],
)
def test_a_suggestion_is_the_inverse_of_its_parameters(ratio: Ratio, n_experts: int) -> None:
    suggested = suggest_ratio(optuna.trial.FixedTrial(ratio_params(ratio, n_experts)), n_experts)
    assert as_weights(suggested, n_experts) == pytest.approx(as_weights(ratio, n_experts))


def test_with_two_experts_the_parameter_is_the_ratio() -> None:
    assert ratio_params(0.3, 2) == {"release_ratio.1": 0.3}
    assert suggest_ratio(optuna.trial.FixedTrial({"release_ratio.1": 0.3}), 2) == 0.3


@pytest.mark.parametrize(
    ("ratio", "known", "expected"),
    [
        (0.1 + 0.2, [0.5, 0.3], 0.3),
        (0.31, [0.5, 0.3], 0.31),
        ((0.1 + 0.2, 0.7), [(0.3, 0.7)], (0.3, 0.7)),
        (0.333333, [0.5, 1 / 3], 1 / 3),
        (0.500001, [0.5, 0.5000012], 0.5000012),
        (0.33333, [0.5, 1 / 3], 0.33333),
        (0.5, [], 0.5),
    ],
)
def test_the_nearest_ratio_differs_by_rounding_alone(
    ratio: Ratio, known: list[Ratio], expected: Ratio
) -> None:
    assert nearest(ratio, known) == expected


@pytest.mark.parametrize("n_experts", [3, 4])
def test_random_ratios_are_uniform_on_the_simplex_for_every_expert(n_experts: int) -> None:
    """Each weight then has the distribution Beta(1, n - 1), and each order the same probability."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    n_ratios = 2000
    ratios = np.array([suggest_ratio(study.ask(), n_experts) for _ in range(n_ratios)])
    for weights in ratios.T:
        assert kstest(weights, beta(1, n_experts - 1).cdf).pvalue > 0.01
    orders = Counter(map(tuple, ratios.argsort(1)))
    assert chisquare([orders[o] for o in itertools.permutations(range(n_experts))]).pvalue > 0.01
