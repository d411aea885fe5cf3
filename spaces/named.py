"""The built-in spaces by name, and custom spaces."""

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
from spaces.lineages import branches, lineages
from spaces.mixing import averaging, mixing, tune_sync
from spaces.protocol import Space, Trial, configuration_of, on_grid, tune_float


def smoke(trial: Trial, base: TrainConfig) -> TrainConfig:
    """The first expert's learning rate and the syncs: a small space for a quick check."""
    first = base.experts[0]
    path = f"experts.{first.name}.optimizer.lr"
    config = tune_float(
        trial, base, path, first.optimizer.lr / 30, first.optimizer.lr * 3, log=True
    )
    return tune_sync(trial, config)


def fixed(_: Trial, base: TrainConfig) -> TrainConfig:
    """Nothing is searched: the space of one training."""
    return base


def full(trial: Trial, base: TrainConfig) -> TrainConfig:
    """Mixing, syncs, averages, optimizers, schedules, attacks and losses."""
    return tasks(trial, experts(trial, averaging(trial, mixing(trial, base))))


SPACES: dict[str, Space] = {
    "smoke": smoke,
    "mixing": mixing,
    "experts": experts,
    "full": full,
    "branches": branches,
    "lineages": lineages,
}


def load_space(name: str) -> Space:
    """A built-in space by name, or the function `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    Loading a function runs the code of its file.

    Raises:
        InvalidConfigError: the name is unknown, or there is no such function.
    """
    if name in SPACES:
        return SPACES[name]
    if ":" not in name:
        raise InvalidConfigError(
            f"`space` must be one of {', '.join(SPACES)}, or FILE.py:FUNCTION, but got {name!r}."
        )
    return cast(Space, load_callable(name, what="space"))


class FieldReader:
    """A trial that suggests the values of configurations; the first that has the field decides.

    A value outside the range becomes the nearest bound, one between the steps the nearest step, a
    choice that is not offered the first one, and a field in which no configuration has a number
    gets the middle of its range. `params` collects the suggestions.
    """

    def __init__(self, *configs: TrainConfig) -> None:
        self.configs = configs
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The field's value, clamped to [low, high], at the nearest step."""
        require(low <= high, "low <= high", f"low={low}, high={high} for {name!r}")
        require(not log or low > 0, "low > 0", f"low={low} for {name!r} with log=True")
        require(step is None or step > 0, "step > 0", f"step={step} for {name!r}")
        if log and step is not None:
            raise InvalidConfigError(
                f"A parameter must have a step or a logarithmic scale, but got both for {name!r}."
            )
        held = self._read(name, None)
        if isinstance(held, bool) or not isinstance(held, int | float):
            held = math.sqrt(low * high) if log else (low + high) / 2
        value = min(max(float(held), low), high)
        value = value if step is None else on_grid(value, low, high, step)
        self.params[name] = value
        return value

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The field's value, clamped to [low, high], at the nearest step."""
        value = round(
            self.suggest_float(name, low, high, step=step if step != 1 else None, log=log)
        )
        self.params[name] = value
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The field's value if it is one of `choices`, else the first of them."""
        held = self._read(name, choices[0])
        equal = [choice for choice in choices if choice == held]
        of_its_type = [choice for choice in equal if type(choice) is type(held)]
        value = next(iter(of_its_type or equal or choices))
        self.params[name] = value
        return value

    def _read(self, name: str, otherwise: Any) -> Any:
        for config in self.configs:
            with contextlib.suppress(InvalidConfigError):
                return value_at(config, name)
        return otherwise


def base_suggestion(space: Space, base: TrainConfig) -> tuple[dict[str, Any], Ratio]:
    """The suggestion with which `space` returns `base`, and the ratio to release there.

    Raises:
        InvalidConfigError: the space returns an invalid configuration.
    """
    return _suggestion(space, base, base)


def paper_suggestion(space: Space, base: TrainConfig) -> tuple[dict[str, Any], Ratio]:
    """The suggestion with which `space` returns the paper's values, and the ratio to release there.

    Fields that the paper does not have, such as those of a third expert, are as in `base`. Raises
    as `base_suggestion` does.
    """
    published = paper(data=base.data, model=base.model, epochs=base.epochs)
    return _suggestion(space, base, published)


def _suggestion(
    space: Space, base: TrainConfig, wanted: TrainConfig
) -> tuple[dict[str, Any], Ratio]:
    reader = FieldReader(wanted, base)
    configuration_of(space, reader, base)
    same_experts = len(base.experts) == len(wanted.experts)
    return reader.params, (wanted if same_experts else base).mixing.ratio.values[-1]
