"""Spaces in which a robust expert grows without an end, and short branches leave it.

Up to the first sync one robust expert has a constant learning rate and all the weight in the
mixture, so its warm-up depends on its own settings alone: such a warm-up is a lineage. The others,
natural or robust, begin at the first sync as that one. What follows is a branch: a few epochs in
which all experts are trained, or all but the lineage's, which rests. A search of such a space grows
its lineages stage by stage, see `search.scheduling.lineages`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from generalist_core.config import (
    PGD,
    EarlierSettings,
    ExpertConfig,
    RatioSchedule,
    SeveralAttacks,
    TrainConfig,
)
from generalist_core.config.codec import replace_all, replace_at, value_at
from generalist_core.config.mixing import vertex
from generalist_core.validation import InvalidConfigError
from spaces.experts import tune_loss, tune_optimizer
from spaces.mixing import averaging
from spaces.protocol import Trial, suggest_weights, tune_choice, tune_float, tune_int

LENGTH = "cotraining_epochs"
"""The parameter for the epochs of a branch; a space that asks for it has lineages."""

START = "sync.start_epoch"
"""The parameter for the epochs of the lineage that a branch leaves."""

LINEAGE = "lineage"
"""The parameter for the expert that is the lineage, where there are several robust ones."""

LONGEST = 10_000
"""A bound on the epochs of a lineage, which Optuna needs; the budget of a sweep ends it before."""


Value = TypeVar("Value")


class WithLength:
    """A trial in which the lineage has the epochs that `epochs_of` its robust expert says."""

    def __init__(
        self, trial: Trial, base: TrainConfig, epochs_of: Callable[[ExpertConfig], int]
    ) -> None:
        self.trial = trial
        self.config = base
        self.epochs_of = epochs_of

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A suggestion of the trial's, or the given length."""
        if name == START:
            low = high = self.epochs_of(robust_of(self.config))
        value = self.trial.suggest_int(name, low, high, step=step, log=log)
        for expert in self.config.experts:
            if name in (f"{path}.steps" for path in attacks_with_steps(expert)[:1]):
                self.config = with_steps(self.config, expert.name, value)
                return value
        return self._noted(name, value)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A suggestion of the trial's."""
        return self._noted(name, self.trial.suggest_float(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """A suggestion of the trial's."""
        value = self.trial.suggest_categorical(name, choices)
        if name == LINEAGE:
            self.config = begins_as(self.config, value)
        return self._noted(name, value)

    def _noted(self, name: str, value: Value) -> Value:
        with contextlib.suppress(InvalidConfigError):
            self.config = replace_at(self.config, name, value)
        return value


def lineages(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Lineages of any settings of a robust expert: optimizer, attack, loss and averages."""
    config = averaging(trial, chosen(trial, base))
    robust = robust_of(config)
    config = tune_optimizer(trial, config, f"experts.{robust.name}.optimizer")
    return branch(trial, tune_steps(trial, tune_loss(trial, config, robust), robust))


def branches(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Lineages of a robust expert of `base`, with any number of steps if it trains on PGD."""
    config = chosen(trial, base)
    return branch(trial, tune_steps(trial, config, robust_of(config)))


def chosen(trial: Trial, base: TrainConfig) -> TrainConfig:
    """`base` that begins with all the weight on a robust expert, a suggested one of several."""
    names = [expert.name for expert in robust_experts(base)]
    return begins_as(
        base, names[0] if len(names) == 1 else trial.suggest_categorical(LINEAGE, names)
    )


def tune_steps(trial: Trial, config: TrainConfig, expert: ExpertConfig) -> TrainConfig:
    """The steps of an expert's PGD, or of all it trains on, see `with_steps`; others are kept."""
    attacks = attacks_with_steps(expert)
    if not attacks:
        return config
    return with_steps(config, expert.name, trial.suggest_int(f"{attacks[0]}.steps", 2, 12))


def with_steps(config: TrainConfig, expert: str, steps: int) -> TrainConfig:
    """`config` whose expert trains on PGD of so many steps, which together can cross the ball."""
    changes: list[tuple[str, float]] = []
    for path in attacks_with_steps(next(each for each in config.experts if each.name == expert)):
        length = max(value_at(config, f"{path}.relative_step_size"), 2 / steps)
        changes += [(f"{path}.steps", steps), (f"{path}.relative_step_size", length)]
    return replace_all(config, changes)


def attacks_with_steps(expert: ExpertConfig) -> list[str]:
    """The paths of the PGD attacks that an expert trains on."""
    path = f"experts.{expert.name}.attack"
    if isinstance(expert.attack, SeveralAttacks):
        return [f"{path}.parts.{index}" for index in range(len(expert.attack.parts))]
    return [path] if isinstance(expert.attack, PGD) else []


def branch(trial: Trial, config: TrainConfig) -> TrainConfig:
    """A branch of 1 to 6 epochs from a lineage of the `robust_of` the configuration.

    Raises:
        InvalidConfigError: no expert is robust.
    """
    robust = robust_of(config)
    start = trial.suggest_int(START, 1, LONGEST, log=True)
    config = as_lineage(config, start, start + trial.suggest_int(LENGTH, 1, 6))
    for other in (expert for expert in config.experts if expert.name != robust.name):
        path, rate = f"experts.{other.name}.optimizer.lr", other.optimizer.lr
        config = tune_float(trial, config, path, rate / 30, rate * 3, log=True)
        config = tune_steps(trial, config, other)
    config = tune_choice(trial, config, f"experts.{robust.name}.rests", [True, False])
    if value_at(config, f"experts.{robust.name}.rests"):
        return config
    path = f"experts.{robust.name}.schedule.values.2"
    config = tune_float(trial, config, path, 0.01, 1.0, log=True)
    if len(config.experts) == 2:
        config = tune_float(trial, config, "mixing.ratio.values.2", 0.0, 1.0)
    else:
        weights = suggest_weights(trial, "mixing.ratio.end_shares", len(config.experts))
        config = replace_at(config, "mixing.ratio.values.2", weights)
    return tune_int(trial, config, "sync.every_epochs", 1, 3)


def as_lineage(config: TrainConfig, start: int, epochs: int) -> TrainConfig:
    """`config` with its first sync at `start`, up to which only its `robust_of` is trained."""
    n_experts, knots = len(config.experts), [0, start / epochs, 1]
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
        release_ratios=tuple(vertex(index, n_experts) for index in range(n_experts)),
        release="last",
        release_global=False,
    )
    config = replace(
        begins_as(config, robust_of(config).name),
        epochs=epochs,
        sync=sync,
        evaluation=evaluation,
        epoch_progress="start",
    )
    for expert in config.experts:
        config = replace_at(config, f"experts.{expert.name}.schedule", rates)
    ratio = RatioSchedule(knots=tuple(knots), values=(config.mixing.ratio.values[0],) * 3)
    return replace(config, mixing=replace(config.mixing, ratio=ratio))


def continued(config: TrainConfig, before: TrainConfig) -> TrainConfig:
    """`config` whose lineage continues that of `before`; if it has other settings, with these."""
    robust, past = robust_of(config), robust_of(before)
    settings = {"attack": past.attack, "loss": past.loss, "optimizer": past.optimizer}
    earlier = past.earlier
    if any(getattr(robust, name) != value for name, value in settings.items()):
        earlier += (EarlierSettings(until=before.sync.start_epoch, **settings),)  # type: ignore[arg-type]
    experts = (
        replace(expert, earlier=earlier) if expert is robust else expert
        for expert in config.experts
    )
    return replace(config, experts=tuple(experts))


def begins_as(config: TrainConfig, expert: str) -> TrainConfig:
    """`config` in which that expert has all the weight throughout."""
    index = [known.name for known in config.experts].index(expert)
    alone = vertex(index, len(config.experts))
    ratio = RatioSchedule(values=(alone, alone))
    return replace(config, mixing=replace(config.mixing, ratio=ratio))


def fits_lineages(config: TrainConfig) -> bool:
    """Whether an expert is robust."""
    return any(expert.attack is not None for expert in config.experts)


def robust_experts(config: TrainConfig) -> tuple[ExpertConfig, ...]:
    """The experts that a lineage may train.

    Raises:
        InvalidConfigError: there is none.
    """
    if not fits_lineages(config):
        raise InvalidConfigError(
            "A space with lineages must have a robust expert, but got "
            f"{', '.join(expert.name for expert in config.experts)}. Search `full` instead."
        )
    return tuple(expert for expert in config.experts if expert.attack is not None)


def robust_of(config: TrainConfig) -> ExpertConfig:
    """The robust expert that begins with all the weight, or else the first robust one; raises so.

    It is the one that the lineage of `config` trains.
    """
    return max(robust_experts(config), key=lambda expert: expert.name == config.lineage)


def lineage_params(params: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The parameters that all branches of a lineage share, whatever its length."""
    robust = robust_of(config).name
    of_branches = (
        START,
        LENGTH,
        *(f"experts.{expert.name}." for expert in config.experts if expert.name != robust),
        f"experts.{robust}.rests",
        f"experts.{robust}.schedule.",
        "mixing.ratio.",
        "sync.every_epochs",
        "release_ratio.",
    )
    return {name: value for name, value in params.items() if not name.startswith(of_branches)}
