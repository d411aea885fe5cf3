"""The release ratio as parameters of a study.

For two experts, `release_ratio.1` is the mixing ratio itself. For more, `release_ratio.shares.i` is
the share of expert i, see `generalist_core.config.mixing.weights_of`.
"""

from __future__ import annotations

from collections.abc import Sequence

from generalist_core.config import Ratio, as_weights
from generalist_core.config.mixing import N_DECIMALS, ratio_key, rounded, shares_of
from spaces.protocol import Trial, suggest_weights

SHARES = "release_ratio.shares"


def suggest_ratio(trial: Trial, n_experts: int) -> Ratio:
    """The release ratio that a trial suggests, its weights rounded to `N_DECIMALS`."""
    if n_experts == 2:
        return round(trial.suggest_float("release_ratio.1", 0.0, 1.0), N_DECIMALS)
    return rounded(suggest_weights(trial, SHARES, n_experts))


def nearest(ratio: Ratio, known: Sequence[Ratio]) -> Ratio:
    """The known ratio that `suggest_ratio` rounds to `ratio`, or `ratio` itself if none does."""
    weights = ratio_key(ratio)

    def distance(other: Ratio) -> float:
        return max(abs(a - b) for a, b in zip(weights, ratio_key(other), strict=True))

    closest = min(known, key=distance, default=ratio)
    return closest if distance(closest) < len(weights) * 10**-N_DECIMALS else ratio


def ratio_params(ratio: Ratio, n_experts: int) -> dict[str, float]:
    """The parameters from which `suggest_ratio` makes `ratio`."""
    weights = as_weights(ratio, n_experts)
    if n_experts == 2:
        return {"release_ratio.1": weights[1]}
    return {f"{SHARES}.{i}": share for i, share in enumerate(shares_of(weights))}
