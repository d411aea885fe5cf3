"""Spaces in which a robust expert grows without an end, and short branches leave it.

Up to the first sync the robust expert has a constant learning rate and all the weight in the
mixture, so its warm-up depends on its own settings alone: such a warm-up is a lineage. The natural
expert begins at the first sync as the robust one. What follows is a branch: a few epochs in which
both experts are trained, or only the natural one while the robust one rests. A search of such a
space grows its lineages stage by stage, see `search.scheduling.lineages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from generalist_core.config import PGD, ExpertConfig, TrainConfig
from generalist_core.config.codec import replace_at, value_at
from generalist_core.validation import InvalidConfigError
from spaces.experts import tune_loss, tune_optimizer
from spaces.mixing import averaging
from spaces.protocol import Trial, tune_choice, tune_float, tune_int

LENGTH = "cotraining_epochs"
"""The parameter for the epochs of a branch; a space that asks for it has lineages."""

START = "sync.start_epoch"
"""The parameter for the epochs of the lineage that a branch leaves."""

LONGEST = 10_000
"""A bound on the epochs of a lineage, which Optuna needs; the budget of a sweep ends it before."""


def lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Lineages of any settings of the robust expert: optimizer, attack, loss and averages."""
    robust = robust_of(base)
    config = tune_optimizer(trial, averaging(trial, base), f"experts.{robust.name}.optimizer")
    return branch(trial, tune_steps(trial, tune_loss(trial, config, robust)))


def branches(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Lineages of the robust expert of `base`, with any number of steps if it trains on PGD."""
    return branch(trial, tune_steps(trial, base))


def tune_steps(trial: Trial, config: TrainConfig) -> TrainConfig:
    """The steps of PGD, see `with_steps`; any other attack is kept."""
    robust = robust_of(config)
    if not isinstance(robust.attack, PGD):
        return config
    return with_steps(config, trial.suggest_int(f"experts.{robust.name}.attack.steps", 2, 12))


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """`config` whose robust expert trains on PGD of so many steps, which can cross the ball."""
    path = f"experts.{robust_of(config).name}.attack"
    length = max(value_at(config, f"{path}.relative_step_size"), 2 / steps)
    config = replace_at(config, f"{path}.steps", steps)
    return replace_at(config, f"{path}.relative_step_size", length)


def branch(trial: Trial, config: TrainConfig) -> TrainConfig:
    """A branch of 1 to 6 epochs from a lineage of the robust expert of `config`.

    Raises:
        InvalidConfigError: there is not one natural and one robust expert, in this order.
    """
    robust = robust_of(config)
    natural = config.experts[0].name
    start = trial.suggest_int(START, 1, LONGEST, log=True)
    config = as_lineage(config, start, start + trial.suggest_int(LENGTH, 1, 6))
    rate = value_at(config, f"experts.{natural}.optimizer.lr")
    path = f"experts.{natural}.optimizer.lr"
    config = tune_float(trial, config, path, rate / 30, rate * 3, log=True)
    config = tune_choice(trial, config, f"experts.{robust.name}.rests", [True, False])
    if value_at(config, f"experts.{robust.name}.rests"):
        return config
    path = f"experts.{robust.name}.schedule.values.2"
    config = tune_float(trial, config, path, 0.01, 1.0, log=True)
    config = tune_float(trial, config, "mixing.ratio.values.2", 0.0, 1.0)
    return tune_int(trial, config, "sync.every_epochs", 1, 3)


def as_lineage(config: TrainConfig, start: int, epochs: int) -> TrainConfig:
    """`config` with its first sync at `start`, up to which only the robust expert is trained."""
    knots = [0, start / epochs, 1]
    rates = {"type": "PiecewiseLinear", "knots": knots, "values": [1, 1, 0.1], "per_step": True}
    sync = replace(
        config.sync,
        start_epoch=start,
        every_epochs=epochs,
        restart_averages=True,
        skip_discarded_warmup=True,
    )
    evaluation = replace(
        config.evaluation,
        every_epochs=epochs,
        release_ratios=(0.0, 1.0),
        release="last",
        release_global=False,
    )
    config = replace(
        config, epochs=epochs, sync=sync, evaluation=evaluation, epoch_progress="start"
    )
    for expert in config.experts:
        config = replace_at(config, f"experts.{expert.name}.schedule", rates)
    return replace_at(config, "mixing.ratio", {"knots": knots, "values": [1, 1, 1]})


def fits_lineages(config: TrainConfig) -> bool:
    """Whether there is one natural and one robust expert, in this order."""
    return [expert.attack is not None for expert in config.experts] == [False, True]


def robust_of(config: TrainConfig) -> ExpertConfig:
    """The expert that a lineage trains.

    Raises:
        InvalidConfigError: there is not one natural and one robust expert, in this order.
    """
    if not fits_lineages(config):
        raise InvalidConfigError(
            "A space with lineages must have a natural expert and then a robust one, but got "
            f"{', '.join(expert.name for expert in config.experts)}. Search `full` instead."
        )
    return config.experts[1]


def lineage_params(params: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The parameters that all branches of a lineage share, whatever its length."""
    natural, robust = (f"experts.{expert.name}." for expert in config.experts)
    of_branches = (
        START,
        LENGTH,
        natural,
        f"{robust}rests",
        f"{robust}schedule.",
        "mixing.ratio.",
        "sync.every_epochs",
        "release_ratio.",
    )
    return {name: value for name, value in params.items() if not name.startswith(of_branches)}
