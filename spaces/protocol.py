"""What a search space is: a function from a trial and a base configuration to a configuration.

Every searched name is the dotted path of the field that it sets (see
`generalist_core.config.codec`), so that a suggestion can be read from a configuration and a
configuration from a suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at


class Trial(Protocol):
    """An object that suggests values, such as `optuna.Trial`."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high], on a logarithmic scale if `log`."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        """One of `choices`."""
        ...


Space = Callable[[Trial, TrainConfig], TrainConfig]


def tune_float(
    trial: Trial, config: TrainConfig, path: str, low: float, high: float, *, log: bool = False
) -> TrainConfig:
    """`config` with a suggested number at `path`."""
    return replace_at(config, path, trial.suggest_float(path, low, high, log=log))


def tune_int(
    trial: Trial, config: TrainConfig, path: str, low: int, high: int, *, log: bool = False
) -> TrainConfig:
    """`config` with a suggested whole number at `path`."""
    return replace_at(config, path, trial.suggest_int(path, low, high, log=log))


def tune_choice(
    trial: Trial, config: TrainConfig, path: str, choices: Sequence[str]
) -> TrainConfig:
    """`config` with one of `choices` at `path`: a string, or a class with its default fields."""
    return replace_at(config, path, trial.suggest_categorical(path, choices))
