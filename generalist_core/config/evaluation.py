"""How learners are evaluated while the search runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generalist_core.config.attacks import NFGSM, Attack, SeveralAttacks
from generalist_core.config.fields import NotNegative, Positive, with_checked_fields
from generalist_core.config.mixing import Ratio
from generalist_core.validation import InvalidConfigError, require_one_of

NATURAL = "natural"
"""The objective of accuracy on natural images."""

UNION = "union"
"""The objective of images that are right as they are and under every attack."""

MEAN = "mean"
"""The objective of accuracy under an attack, averaged over the attacks."""

AttackPrecision = Literal["auto", "float32", "tfloat32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class NamedAttack:
    """An attack that defines an objective: the accuracy under it."""

    name: str
    attack: Attack

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in (NATURAL, UNION, MEAN):
            raise InvalidConfigError(
                "The name of an evaluation attack must be an identifier other than "
                f"'{NATURAL}', '{UNION}' and '{MEAN}', but got {self.name!r}."
            )
        if isinstance(self.attack, NFGSM | SeveralAttacks):
            raise InvalidConfigError(
                f"An evaluation attack must stay in one ball, but got {self.attack}. The objective "
                f"'{UNION}' counts images that withstand several attacks."
            )


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class EvaluationConfig:
    """How learners are evaluated while the search runs.

    The `objectives` are accuracies by name, first the `natural` one. By default the accuracy under
    each of `attacks` follows, under its name. There is also `union`, the fraction of images that
    are right as they are and under every attack, and `mean`, the mean of the accuracies under the
    attacks. The mixtures of the trained experts are evaluated on the first `n_images` validation
    images (all if None). During training, where precision matters less, the learners are evaluated
    every `every_epochs` epochs on the first `n_images_during_training` (`n_images` if None).

    The mixtures at `release_ratios` are released, and up to `n_refinements` more where the front
    has the most room (see `generalist_core.training.release`). They are mixed from the experts at
    the `best` evaluated boundary (see `generalist_core.training.best_boundary`), or always from
    those at the `last`. With `release_global` the global learner of the same epoch is released
    beside them, if a sync has happened, and it is not one of these mixtures.

    `precision` is that in which adversarial images are crafted, as `TrainConfig.precision`; `auto`
    is bfloat16 on GPUs that have it. Whether a model classifies an image correctly, natural or
    crafted, is always told in full float32 (float64 in a training of that precision, which also
    crafts in it). MultiTargeted spares the images that it finds misclassified in the `precision`.
    """

    attacks: tuple[NamedAttack, ...]
    objectives: tuple[str, ...] | None = None
    every_epochs: Positive[int] = 10
    n_images: Positive[int] | None = None
    n_images_during_training: Positive[int] | None = None
    batch_size: Positive[int] = 256
    release_ratios: tuple[Ratio, ...] = (0.0, 0.5, 1.0)
    n_refinements: NotNegative[int] = 3
    release: Literal["best", "last"] = "best"
    release_global: bool = True
    precision: AttackPrecision = "float32"

    def __post_init__(self) -> None:
        names = [attack.name for attack in self.attacks]
        if not names:
            raise InvalidConfigError("There must be at least one evaluation attack, but got none.")
        if len(set(names)) < len(names):
            raise InvalidConfigError(f"Attacks must have different names, but got {names}.")
        if self.objectives is not None:
            require_objectives(self.objectives, names)
        if not self.release_ratios:
            raise InvalidConfigError("There must be at least one release ratio, but got none.")

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The `objectives`; by default `natural`, then one per attack."""
        return self.objectives or (NATURAL, *(attack.name for attack in self.attacks))


def require_objectives(objectives: Sequence[str], attacks: Sequence[str]) -> None:
    """Check the names of objectives, where the attacks have these names.

    Raises:
        InvalidConfigError: `natural` is not the first of two or more, a name is unknown or occurs
            twice, or an attack is part of no objective.
    """
    for name in objectives:
        require_one_of("objective", name, (NATURAL, *attacks, UNION, MEAN))
    if len(objectives) < 2 or objectives[0] != NATURAL or len({*objectives}) < len(objectives):
        raise InvalidConfigError(
            f"`objectives` must be '{NATURAL}' and then others, each once, but got "
            f"{', '.join(objectives) or 'none'}."
        )
    unused = [name for name in attacks if name not in objectives]
    if unused and UNION not in objectives and MEAN not in objectives:
        raise InvalidConfigError(
            f"Every evaluation attack must be part of an objective, but {', '.join(unused)} is "
            f"not. Add it to `objectives`, or add '{UNION}' or '{MEAN}', or leave the attack out."
        )
