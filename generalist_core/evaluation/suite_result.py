"""What an attack suite reports: its progress after every batch, and its result at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generalist_core.config.suite import AUTOATTACK, SuiteConfig
from generalist_core.evaluation.indicators import Indicator, fraction_of


@dataclass(frozen=True, kw_only=True)
class Progress:
    """After a batch: the attack, its images done and in total, and the accuracy still possible."""

    attack: str
    n_done: int
    n_total: int
    bound: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteResult:
    """The result of a suite; mappings are by attack, in the order in which the attacks ran.

    `verdicts`, (n_images,), are True where the image is still classified correctly, and `attacked`
    is True where the attack saw the image. An image that was broken before counts as broken, so
    that without `config.attack_all` accuracies are running worst cases. `forward_images` and
    `gradient_images` count what was really computed, `full_costs` the forwards and gradients of one
    image that is never broken. `skipped` has the reason why each attack was left out.
    """

    config: SuiteConfig
    n_images: int
    verdicts: Mapping[str, Tensor]
    attacked: Mapping[str, Tensor]
    forward_images: Mapping[str, int]
    gradient_images: Mapping[str, int]
    full_costs: Mapping[str, int]
    seconds: Mapping[str, float]
    skipped: Mapping[str, str]
    indicators: tuple[Indicator, ...]

    @property
    def accuracies(self) -> dict[str, float]:
        """The fraction of images still correct, by attack."""
        return {name: fraction_of(correct) for name, correct in self.verdicts.items()}

    @property
    def worst_case(self) -> Tensor:
        """Whether each image, (n_images,), withstood every attack."""
        return torch.stack(list(self.verdicts.values())).all(0)

    @property
    def worst_case_accuracy(self) -> float:
        """The fraction of images that withstood every attack."""
        return fraction_of(self.worst_case)

    @property
    def saved_fraction(self) -> float | None:
        """The fraction of AutoAttack's cost that early exits saved; None if it was not run.

        It compares the forwards and gradients computed with those of attacking every image to the
        end.
        """
        parts = [name for name in AUTOATTACK if name in self.verdicts]
        if not parts:
            return None
        spent = sum(self.forward_images[name] + self.gradient_images[name] for name in parts)
        return 1 - spent / (self.n_images * sum(self.full_costs[name] for name in parts))
