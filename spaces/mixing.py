"""Spaces over how experts are mixed and when they restart from the mixture."""

from __future__ import annotations

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at, value_at
from spaces.protocol import Trial, suggest_weights, tune_float, tune_int


def mixing(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The start and the interval of syncs, and the mixing ratio: its level, knot and end."""
    config = tune_sync(trial, base)
    tune = tune_ratio if len(base.experts) == 2 else tune_weights
    return tune(trial, config)


def averaging(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The decay of the averages."""
    return tune_float(trial, base, "mixing.decay", 0.9, 0.9995)


def tune_ratio(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A mixing ratio that is constant until a knot and then linear to its end.

    The knot is not before the first sync, so that warm-ups do not depend on it.
    """
    config = replace_at(base, "mixing.ratio", {"knots": [0, 2 / 3, 1], "values": [1, 1, 0.4]})
    config = tune_float(trial, config, "mixing.ratio.values.0", 0.0, 1.0)
    config = replace_at(config, "mixing.ratio.values.1", value_at(config, "mixing.ratio.values.0"))
    config = tune_knot(trial, config)
    return tune_float(trial, config, "mixing.ratio.values.2", 0.0, 1.0)


def tune_weights(trial: Trial, base: TrainConfig) -> TrainConfig:
    """As `tune_ratio`, for any number of experts: both ratios are points on the simplex.

    See `generalist_core.config.mixing.weights_of`.
    """
    n_experts = len(base.experts)
    start = suggest_weights(trial, "mixing.ratio.start_shares", n_experts)
    schedule = {"knots": [0, 2 / 3, 1], "values": [start, start, start]}
    config = tune_knot(trial, replace_at(base, "mixing.ratio", schedule))
    end = suggest_weights(trial, "mixing.ratio.end_shares", n_experts)
    return replace_at(config, "mixing.ratio.values.2", end)


def tune_knot(trial: Trial, config: TrainConfig) -> TrainConfig:
    """The progress up to which the ratio is constant, not before the first sync."""
    first_sync = max(0.01, config.sync.start_epoch / config.epochs)
    last = max(0.99, first_sync)
    return tune_float(trial, config, "mixing.ratio.knots.1", first_sync, last)


def tune_sync(trial: Trial, config: TrainConfig) -> TrainConfig:
    """The start of the syncs, in the last three quarters of the run, and their interval."""
    epochs = config.epochs
    config = tune_int(trial, config, "sync.start_epoch", epochs // 4, epochs - 1)
    return tune_int(trial, config, "sync.every_epochs", 1, max(1, epochs // 6), log=True)
