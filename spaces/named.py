"""The spaces that have a name, and the user's own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, cast

from generalist_core.config import Ratio, TrainConfig
from generalist_core.config.codec import value_at
from generalist_core.config.presets import paper
from generalist_core.user_code import load_callable
from generalist_core.validation import InvalidConfigError, require
from spaces.experts import experts, tasks
from spaces.mixing import averaging, mixing, tune_sync
from spaces.protocol import Space, Trial, tune_float


def smoke(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The first expert's learning rate and the syncs: small, to see that all works."""
    first = base.experts[0]
    path = f"experts.{first.name}.optimizer.lr"
    config = tune_float(
        trial, base, path, first.optimizer.lr / 30, first.optimizer.lr * 3, log=True
    )
    return tune_sync(trial, config)


def full(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Mixing, syncs, averages, optimizers, schedules, attacks and losses."""
    return tasks(trial, experts(trial, averaging(trial, mixing(trial, base))))


SPACES: dict[str, Space] = {"smoke": smoke, "mixing": mixing, "experts": experts, "full": full}


def load_space(name: str) -> Space:
    """A named space, or the function `FILE.py:FUNCTION` or `MODULE:FUNCTION` (whose code runs).

    Raises:
        InvalidConfigError: unknown name, or no such function.
    """
    if name in SPACES:
        return SPACES[name]
    if ":" not in name:
        known = f"`space` must be one of {', '.join(SPACES)}, or FILE.py:FUNCTION"
        raise InvalidConfigError(f"{known}, but got {name!r}.")
    return cast(Space, load_callable(name, what="space"))


class FieldReader:
    """A trial that suggests what configurations hold: the first that has the field decides.

    A value outside its range becomes the nearest bound, a choice not offered the first one, and a
    field that no configuration has the middle. `params` collects what was suggested.
    """

    def __init__(self, *configs: TrainConfig) -> None:
        self.configs = configs
        self.params: dict[str, float | int | str] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The field's value, brought into [low, high]."""
        require(low <= high, "low <= high", f"low={low}, high={high} for {name!r}")
        require(not log or low > 0, "low > 0 with log", f"low={low} for {name!r}")
        middle = math.sqrt(low * high) if log else (low + high) / 2
        value = min(max(float(self._read(name, middle)), low), high)
        self.params[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """The field's value, brought into [low, high]."""
        value = round(self.suggest_float(name, low, high, log=log))
        self.params[name] = value
        return value

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> str:
        """The field's value if it is offered."""
        found = self._read(name, choices[0])
        value = str(found) if found in choices else choices[0]
        self.params[name] = value
        return value

    def _read(self, name: str, otherwise: float | str) -> Any:
        for config in self.configs:
            with contextlib.suppress(InvalidConfigError):
                return value_at(config, name)
        return otherwise


def base_suggestion(space: Space, base: TrainConfig) -> tuple[dict[str, Any], Ratio]:
    """The suggestion that makes `space` as `base` is, and the ratio to release there.

    Raises:
        InvalidConfigError: the space makes an invalid configuration.
    """
    return _suggestion(space, base, base)


def paper_suggestion(space: Space, base: TrainConfig) -> tuple[dict[str, Any], Ratio]:
    """The suggestion that makes `space` as it is in the paper, and the ratio to release there.

    Fields that the paper does not have, such as those of a third expert, are as in `base`. Errors
    as of `base_suggestion`.
    """
    published = paper(data=base.data, model=base.model, epochs=base.epochs)
    return _suggestion(space, base, published)


def _suggestion(
    space: Space, base: TrainConfig, wanted: TrainConfig
) -> tuple[dict[str, Any], Ratio]:
    reader = FieldReader(wanted, base)
    made = space(reader, base)
    require(isinstance(made, TrainConfig), "a space returns a TrainConfig", repr(made))
    same_experts = len(base.experts) == len(wanted.experts)
    return reader.params, (wanted if same_experts else base).mixing.ratio.values[-1]
