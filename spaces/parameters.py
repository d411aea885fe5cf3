"""All parameters that a space can ask for, including conditional ones, found by calling it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from generalist_core.config import TrainConfig
from generalist_core.validation import InvalidConfigError
from spaces.protocol import Space, configuration_of, on_grid
from spaces.release_ratio import suggest_ratio

PATIENCE = 50
"""Number of calls of a space in a row that find no new parameter, after which the search ends."""

Choices = tuple[Any, ...]


class Range(NamedTuple):
    """The numbers that a parameter may take: at steps (None: all), or on a logarithmic scale."""

    low: float
    high: float
    step: float | None
    log: bool


class Explorer:
    """A trial that suggests for each parameter the rarest choice so far, or a random number."""

    def __init__(self) -> None:
        self.found: dict[str, Choices] = {}
        self.ranges: dict[str, Range] = {}
        self._taken: Counter[tuple[str, Any]] = Counter()
        self._random = random.Random(0)  # noqa: S311  (no secret)

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        """A number in the range, at a step."""
        self._take(name, Range(low, high, step, log))
        value = self._random.uniform(low, high)
        return value if step is None else on_grid(value, low, high, step)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number in the range, at a step."""
        self._take(name, Range(low, high, step, log))
        return self._random.randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """A random one of the rarest choices so far, so that all combinations occur."""
        known = self.found.get(name, ())
        self.found[name] = (*known, *(choice for choice in choices if choice not in known))
        least = min(self._taken[name, choice] for choice in choices)
        rare = [choice for choice in choices if self._taken[name, choice] == least]
        chosen = self._random.choice(rare)
        self._taken[name, chosen] += 1
        return chosen

    def _take(self, name: str, asked: Range) -> None:
        """Know a number, and the least and the largest end of its ranges."""
        self.found.setdefault(name, ())
        known = self.ranges.get(name, asked)
        low, high = min(known.low, asked.low), max(known.high, asked.high)
        self.ranges[name] = asked._replace(low=low, high=high)


def parameters_of_space(space: Space, base: TrainConfig) -> Mapping[str, Choices]:
    """Each parameter of a space and of the release, with its choices; () for a number."""
    return explored(space, base).found


def explored(space: Space, base: TrainConfig) -> Explorer:
    """An explorer that has found the parameters of a space and of the release.

    If the space refuses a suggestion, the parameters that it asked for before that are still found.
    A parameter may be missed if it depends on a condition on numbers that is rarely met. A range
    that depends on other suggestions is as wide as it was found to be.
    """
    explorer, n_in_vain = Explorer(), 0
    suggest_ratio(explorer, len(base.experts))
    while n_in_vain < PATIENCE:
        before = dict(explorer.found)
        with suppress(InvalidConfigError):
            configuration_of(space, explorer, base)
        n_in_vain = n_in_vain + 1 if explorer.found == before else 0
    return explorer


def with_seen(known: Mapping[str, Choices], params: Mapping[str, Any]) -> dict[str, Choices]:
    """The known parameters and those that only a trial had, with their choices."""
    seen = {name: () if type(v) in (int, float) else (v,) for name, v in params.items()}
    return {**seen, **known}
