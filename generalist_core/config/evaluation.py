"""How learners are judged while the search runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generalist_core.config.attacks import NFGSM, Attack
from generalist_core.config.mixing import Ratio
from generalist_core.validation import require, require_one_of, require_positive


@dataclass(frozen=True, kw_only=True)
class NamedAttack:
    """An attack that defines an objective: the accuracy under it."""

    name: str
    attack: Attack

    def __post_init__(self) -> None:
        fits = self.name.isidentifier() and self.name != "natural"
        require(fits, "an objective's name is an identifier other than 'natural'", repr(self.name))
        bounded = not isinstance(self.attack, NFGSM)
        require(bounded, "an evaluation attack stays in its ball", f"{self.attack}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How learners are judged while the search runs.

    Accuracy on natural images and under each of `attacks`. The mixtures of the trained experts are
    judged on the first `n_images` validation images (all if None); every `every_epochs`
    epochs the learners in training are judged on the first `n_images_during_training` (None: as
    many), which need not be exact.

    Released are the mixtures at `release_ratios`, and with two experts up to `n_refinements` more,
    each halfway between the two neighbours with the most room for a front between them. They are of
    the `best` evaluated boundary (see `generalist_core.training.best_boundary`), or always of the `last`.
    """

    attacks: tuple[NamedAttack, ...]
    every_epochs: int = 10
    n_images: int | None = None
    n_images_during_training: int | None = None
    batch_size: int = 256
    release_ratios: tuple[Ratio, ...] = (0.0, 0.5, 1.0)
    n_refinements: int = 3
    release: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        require(len(names) > 0, "at least one evaluation attack", "none")
        require(len(set(names)) == len(names), "objectives of different names", f"{names}")
        require_positive("every_epochs", self.every_epochs)
        for name in ("n_images", "n_images_during_training"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} > 0", f"{value}")
        require(self.n_refinements >= 0, "n_refinements >= 0", f"{self.n_refinements}")
        require_positive("batch_size", self.batch_size)
        require_one_of("release", self.release, ("best", "last"))
        require(len(self.release_ratios) > 0, "at least one release ratio", "none")

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives: `natural`, then one an attack."""
        return ("natural", *(attack.name for attack in self.attacks))
