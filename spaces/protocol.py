"""What a search space is: a function from a trial and a base configuration to a configuration.

Every searched name is the dotted path of the field or property that it sets (see
`generalist_core.config.codec`), so that a suggestion can be read from a configuration and a
configuration from a suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol

from generalist_core.config import TrainConfig
from generalist_core.config.codec import from_dict, replace_at, to_dict
from generalist_core.config.mixing import weights_of
from generalist_core.user_code import described, running_user_code
from generalist_core.validation import InvalidConfigError


class Trial(Protocol):
    """An object that suggests values, such as `optuna.Trial`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]: a multiple of `step` above `low`, or on a logarithmic scale."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number in [low, high]: a multiple of `step` above `low`."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`: strings, numbers, booleans or None."""
        ...


Space = Callable[[Trial, TrainConfig], TrainConfig]


def configuration_of(space: Space, trial: Trial, base: TrainConfig) -> TrainConfig:
    """The configuration that a space makes of the suggestions of a trial.

    Raises:
        InvalidConfigError: the space failed, with whatever error, or returned no valid one.
    """
    file = getattr(getattr(space, "__code__", None), "co_filename", "")
    name = f"space {file}:{getattr(space, '__name__', space)}"
    try:
        with running_user_code(name):
            made = space(trial, base)
            if isinstance(made, TrainConfig):
                return from_dict(to_dict(made), TrainConfig)
    except OSError as error:
        raise InvalidConfigError(f"`{name}` must run, but {described(error)}.") from error
    raise InvalidConfigError(f"A space must return a TrainConfig, but got {made!r}.")


def tune_float(
    trial: Trial,
    config: TrainConfig,
    path: str,
    low: float,
    high: float,
    *,
    step: float | None = None,
    log: bool = False,
) -> TrainConfig:
    """`config` with a suggested number at `path`."""
    return replace_at(config, path, trial.suggest_float(path, low, high, step=step, log=log))


def tune_int(
    trial: Trial,
    config: TrainConfig,
    path: str,
    low: int,
    high: int,
    *,
    step: int = 1,
    log: bool = False,
) -> TrainConfig:
    """`config` with a suggested whole number at `path`."""
    return replace_at(config, path, trial.suggest_int(path, low, high, step=step, log=log))


def tune_choice(
    trial: Trial, config: TrainConfig, path: str, choices: Sequence[Any]
) -> TrainConfig:
    """`config` with one of `choices` at `path`: a value, or a class with its default fields."""
    return replace_at(config, path, trial.suggest_categorical(path, choices))


def suggest_weights(trial: Trial, path: str, n_experts: int) -> tuple[float, ...]:
    """A suggested point on the simplex, by the shares of the experts at `path`."""
    shares = [trial.suggest_float(f"{path}.{i}", 0.0, 1.0) for i in range(n_experts)]
    return weights_of(shares)


def on_grid(value: float, low: float, high: float, step: float) -> float:
    """The number closest to `value` of low, low + step, ... up to `high`, in exact decimals."""
    exact_low, exact_step = Decimal(str(low)), Decimal(str(step))
    last = (Decimal(str(high)) - exact_low) // exact_step
    nearest = round((Decimal(str(value)) - exact_low) / exact_step)
    return float(exact_low + min(max(Decimal(nearest), Decimal(0)), last) * exact_step)
