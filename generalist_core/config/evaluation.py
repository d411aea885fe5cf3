"""How learners are evaluated while the search runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generalist_core.config.attacks import NFGSM, Attack
from generalist_core.config.fields import NotNegative, Positive, with_checked_fields
from generalist_core.config.mixing import Ratio
from generalist_core.validation import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class NamedAttack:
    """An attack that defines an objective: the accuracy under it."""

    name: str
    attack: Attack

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name == "natural":
            raise InvalidConfigError(
                "The name of an objective must be an identifier other than 'natural', but got "
                f"{self.name!r}."
            )
        if isinstance(self.attack, NFGSM):
            raise InvalidConfigError(
                f"An evaluation attack must stay in its ball, but got {self.attack}."
            )


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class EvaluationConfig:
    """How learners are evaluated while the search runs.

    The objectives are the accuracy on natural images and the accuracy under each of `attacks`. The
    mixtures of the trained experts are evaluated on the first `n_images` validation images (all if
    None). During training, where precision matters less, the learners are evaluated every
    `every_epochs` epochs on the first `n_images_during_training` (`n_images` if None).

    The mixtures at `release_ratios` are released, and with two experts up to `n_refinements` more,
    each halfway between the two neighbours with the most room for a front between them. They are
    mixed from the experts at the `best` evaluated boundary (see
    `generalist_core.training.best_boundary`), or always from those at the `last`.

    `precision` is that in which adversarial images are crafted, as `TrainConfig.precision`; `auto`
    is bfloat16 on GPUs that have it. Whether a model classifies an image correctly, natural or
    crafted, is always told in full float32 (float64 in a training of that precision, which also
    crafts in it).
    """

    attacks: tuple[NamedAttack, ...]
    every_epochs: Positive[int] = 10
    n_images: Positive[int] | None = None
    n_images_during_training: Positive[int] | None = None
    batch_size: Positive[int] = 256
    release_ratios: tuple[Ratio, ...] = (0.0, 0.5, 1.0)
    n_refinements: NotNegative[int] = 3
    release: Literal["best", "last"] = "best"
    precision: Literal["auto", "float32", "tfloat32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        if not names:
            raise InvalidConfigError("There must be at least one evaluation attack, but got none.")
        if len(set(names)) < len(names):
            raise InvalidConfigError(f"Objectives must have different names, but got {names}.")
        if not self.release_ratios:
            raise InvalidConfigError("There must be at least one release ratio, but got none.")

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives: `natural`, then one per attack."""
        return ("natural", *(attack.name for attack in self.attacks))
