"""The numbers that training steps compute with: rates, weights of mixtures, radii of attacks.

They are known before an epoch begins. A recorded step reads them from a tensor, so that the same
recording serves other epochs, and other runs, in which only these numbers differ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Number = float | Tensor
"""A factor; as a tensor, (), a recorded step reads it anew at each replay."""

Part = TypeVar("Part")

LIVE = ("epsilon", "relative_step_size", "noise_scale", "beta")
"""The fields of attacks and losses that only enter sums and products, and decide nothing."""

LEFT_OUT = ("weight", "weight_decay")
"""The numbers without which a step does less if they are zero."""


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """The numbers of consecutive steps of an epoch from `first` on: a column for each name."""

    first: int
    columns: Mapping[str, Sequence[float]]

    @property
    def names(self) -> tuple[str, ...]:
        """Those that a recording reads: steps leave out weights and decays that are always zero."""
        return tuple(
            name
            for name, column in self.columns.items()
            if any(column) or name.rpartition("/")[2] not in LEFT_OUT
        )

    def at(self, step: int) -> dict[str, float]:
        """Those of one step, by name."""
        return {name: column[step - self.first] for name, column in self.columns.items()}

    def held_in(self, values: Tensor) -> dict[str, Number]:
        """All by name, those of `names` as the elements of a tensor, (n_names,)."""
        return dict.fromkeys(self.columns, 0.0) | dict(zip(self.names, values, strict=True))

    def table(self, device: torch.device) -> Tensor:
        """Those of `names`, a row for each step; in float32, in which optimizers read a rate."""
        columns = [torch.tensor(self.columns[name]) for name in self.names]
        return torch.stack(columns, 1).to(device)


def of_expert(numbers: Mapping[str, Number], name: str) -> dict[str, Number]:
    """What is an expert's own of the numbers of a step, without its name."""
    start = f"{name}/"
    return {n.removeprefix(start): value for n, value in numbers.items() if n.startswith(start)}


def live_numbers(part: object, path: str) -> dict[str, float]:
    """The `LIVE` fields of an attack or a loss, and of the attacks in it, by their path."""
    own = {f"{path}.{name}": getattr(part, name) for name in LIVE if hasattr(part, name)}
    for name, inner in _parts(part, path):
        own |= live_numbers(inner, name)
    return own


def with_live(part: Part, path: str, numbers: Mapping[str, Number]) -> Part:
    """A copy of an attack or a loss with these numbers, which may be tensors and are not checked.

    `numbers` has all of `live_numbers`.
    """
    changed: dict[str, Any] = {
        name: numbers[f"{path}.{name}"] for name in LIVE if hasattr(part, name)
    }
    if inner := [with_live(each, name, numbers) for name, each in _parts(part, path)]:
        changed["parts"] = tuple(inner)
    other = copy.copy(part)
    for name, value in changed.items():
        object.__setattr__(other, name, value)
    return other


def _parts(part: object, path: str) -> Iterator[tuple[str, Any]]:
    """The attacks that are combined, by their path."""
    return ((f"{path}.parts.{i}", each) for i, each in enumerate(getattr(part, "parts", ())))
