"""The release ratio as parameters of a study.

It is parametrised by stick breaking: `release_ratio.i` is the fraction that expert i takes of what
the experts after it have left. For two experts, `release_ratio.1` is the mixing ratio itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from generalist_core.config import Ratio, as_weights
from generalist_core.config.mixing import ratio_key
from spaces.protocol import Trial

N_DECIMALS = 6
"""Decimals of a suggested weight: more would change no verdict, and make the point's name long."""


def suggest_ratio(trial: Trial, n_experts: int) -> Ratio:
    """The release ratio that a trial suggests, its weights rounded to `N_DECIMALS`."""
    weights, left = [0.0] * n_experts, 1.0
    for expert in range(n_experts - 1, 0, -1):
        fraction = trial.suggest_float(f"release_ratio.{expert}", 0.0, 1.0)
        weights[expert] = round(left * fraction, N_DECIMALS)
        left = round(left - weights[expert], N_DECIMALS)
    weights[0] = left
    return weights[1] if n_experts == 2 else tuple(weights)


def nearest(ratio: Ratio, known: Sequence[Ratio]) -> Ratio:
    """The known ratio that `suggest_ratio` rounds to `ratio`, or `ratio` itself if none does."""
    weights = ratio_key(ratio)

    def distance(other: Ratio) -> float:
        return max(abs(a - b) for a, b in zip(weights, ratio_key(other), strict=True))

    closest = min(known, key=distance, default=ratio)
    return closest if distance(closest) < len(weights) * 10**-N_DECIMALS else ratio


def ratio_params(ratio: Ratio, n_experts: int) -> dict[str, float]:
    """The parameters from which `suggest_ratio` makes `ratio`."""
    weights, left, params = as_weights(ratio, n_experts), 1.0, {}
    for expert in range(n_experts - 1, 0, -1):
        fraction = weights[expert] / left if left > 0 else 0.0
        params[f"release_ratio.{expert}"] = min(1.0, fraction)
        left -= weights[expert]
    return params
