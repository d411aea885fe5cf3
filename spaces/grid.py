"""All combinations of the parameters of a small space, found by calling it.

A conditional parameter is part of the combinations that ask for it, so a grid needs no list of
parameters, and no combination comes twice because of a parameter that it does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeVar

from generalist_core.config import TrainConfig
from generalist_core.config.codec import to_json
from generalist_core.validation import InvalidConfigError
from spaces.parameters import explored
from spaces.protocol import Space, configuration_of, on_grid

Value = TypeVar("Value")

MOST = 10_000
"""The most combinations that a grid may have; a space is called once for each."""


class NoGridError(InvalidConfigError):
    """A space has a continuous parameter, or too many combinations."""


class Walk:
    """A trial that suggests one combination: for each parameter that it meets, the value there.

    `places` are the positions of these values, 0 where none is given; the parameters in `fixed` are
    not among them. Afterwards `sizes` holds the number of values of each, and `continuous` names
    the parameters that have no such number.
    """

    def __init__(self, places: Sequence[int], fixed: Mapping[str, Any]) -> None:
        self.places = places
        self.fixed = fixed
        self.params: dict[str, Any] = {}
        self.sizes: list[int] = []
        self.continuous: list[str] = []

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,  # noqa: ARG002
    ) -> float:
        """The number at its place among the multiples of `step` above `low`."""
        if step is None:
            if low < high and name not in self.fixed:
                self.continuous.append(name)
            return self._take(name, 1, lambda _: low)
        size = int((Decimal(str(high)) - Decimal(str(low))) // Decimal(str(step))) + 1
        return self._take(name, size, lambda place: on_grid(low + place * step, low, high, step))

    def suggest_int(
        self,
        name: str,
        low: int,
        high: int,
        *,
        step: int = 1,
        log: bool = False,  # noqa: ARG002
    ) -> int:
        """The whole number at its place."""
        values = range(low, high + 1, step)
        return self._take(name, len(values), values.__getitem__)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The choice at its place."""
        return self._take(name, len(choices), choices.__getitem__)

    def _take(self, name: str, size: int, value_at: Callable[[int], Value]) -> Value:
        if name in self.fixed:
            self.params[name] = self.fixed[name]
        elif name not in self.params:
            place = self.places[len(self.sizes)] if len(self.sizes) < len(self.places) else 0
            self.sizes.append(size)
            self.params[name] = value_at(place)
        value: Value = self.params[name]
        return value

    def next_places(self) -> list[int]:
        """The places of the next combination, the last parameter first; [] after the last one."""
        places = [*self.places, *[0] * len(self.sizes)][: len(self.sizes)]
        while places and places[-1] + 1 >= self.sizes[len(places) - 1]:
            places.pop()
        return [*places[:-1], places[-1] + 1] if places else []


def grid(
    space: Space, base: TrainConfig, fixed: Mapping[str, Any] | None = None
) -> Iterator[tuple[dict[str, Any], TrainConfig]]:
    """The parameters and the configuration of every combination, in a fixed order.

    The parameter that the space asks for last changes first. Combinations that the space refuses
    are left out, and those that lead to a configuration again; those in `fixed` do not vary.

    Raises:
        NoGridError: a parameter is continuous, or there are more than `MOST` combinations; found
            when the iteration gets there.
    """
    seen, places = set[str](), list[int]()
    for _ in range(MOST):
        walk = Walk(places, fixed or {})
        with suppress(InvalidConfigError):
            config = configuration_of(space, walk, base)
            if not walk.continuous and (key := to_json(config)) not in seen:
                seen.add(key)
                yield walk.params, config
        if walk.continuous:
            raise _no_grid(walk.continuous)
        places = walk.next_places()
        if not places:
            return
    raise NoGridError(
        f"A grid must have at most {MOST} combinations, but the space has more. Give it coarser "
        "steps or fewer choices, or take another sampler."
    )


def grid_size(space: Space, base: TrainConfig) -> int:
    """The number of configurations of a grid.

    Raises:
        NoGridError: as `grid` does, for all continuous parameters that are found; or the space
            refuses every combination.
    """
    continuous = [
        name
        for name, (low, high, step, _) in explored(space, base).ranges.items()
        if step is None and low < high and not name.startswith("release_ratio.")
    ]
    if continuous:
        raise _no_grid(continuous)
    size = sum(1 for _ in grid(space, base))
    if size == 0:
        raise NoGridError("A grid must have a configuration, but the space refuses all of them.")
    return size


def _no_grid(continuous: Sequence[str]) -> NoGridError:
    return NoGridError(
        "The parameters of a grid must be choices, whole numbers, or numbers with a step, but the "
        f"space has the continuous {', '.join(sorted(set(continuous)))}. Give each a `step`, or "
        "take another sampler, such as random."
    )
