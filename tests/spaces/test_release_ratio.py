"""The release ratio as parameters."""

from __future__ import annotations

import optuna
import pytest

from generalist_core.config import Ratio, as_weights
from spaces.release_ratio import ratio_params, suggest_ratio


@pytest.mark.parametrize(
    ("ratio", "n_experts"),
    [(0.0, 2), (0.3, 2), (1.0, 2), ((0.2, 0.5, 0.3), 3), ((0.0, 0.0, 1.0), 3), ((1.0, 0, 0, 0), 4)],
)
def test_breaking_the_stick_is_the_inverse_of_its_parameters(ratio: Ratio, n_experts: int) -> None:
    trial = optuna.trial.FixedTrial(ratio_params(ratio, n_experts))
    found = suggest_ratio(trial, n_experts)  # type: ignore[arg-type]
    assert as_weights(found, n_experts) == pytest.approx(as_weights(ratio, n_experts))
