"""The configuration of an attack suite: its attacks by name, its images, and its seed.

Nothing here imports torch, so that the command line stays light.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from generalist_core.config import FGSM, PGD, Norm, require_ball
from generalist_core.config.fields import NotNegative, Positive, with_checked_fields
from generalist_core.validation import InvalidConfigError, require

AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The components of standard AutoAttack (Croce & Hein 2020), in its order."""

LIBRARY_ATTACKS = (*AUTOATTACK, "apgd-dlr")
"""The attacks that pyautoattack runs."""

KNOWN = "natural, fgsm, pgd-K, mim-K, cw-K, apgd-ce, apgd-dlr, apgd-t, fab-t, square, autoattack"

SuitePrecision = Literal["float32", "tfloat32"]

_ITERATED = re.compile(r"(pgd|mim|cw)-([1-9]\d{,8})(?:x([1-9]\d{,8}))?")


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SuiteConfig:
    """The attacks by name in one ball, and the first `n_images` images (all if None).

    The names are `natural`; `fgsm`; `pgd-K`, `mim-K` and `cw-K` with K steps, or with restarts as
    in `pgd-100x5`; `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t`, `square`; and `autoattack` for its
    four standard components. Their order does not matter, because the cheapest run first. With
    `attack_all` every attack sees every naturally correct image, otherwise only the images that no
    attack has broken yet. `n_check_images` images are probed for indicators of attack failure. With
    0 there are no indicators, but up to 32 images still pass through the model, to check that it is
    one that can be evaluated.

    With `precision="tfloat32"` GPUs that have it craft adversarial images in TF32. Verdicts are
    told in full float32 all the same, so that no image counts as broken that is not. What
    AutoAttack claims is then not checked, as it claims it in TF32.

    `n_iterations` and `n_queries` are those of AutoAttack; smaller numbers overstate robustness,
    and the result says so. AutoAttack's noise depends on the `batch_size`; None means 250 on a CPU,
    and 1000 on a GPU, which smaller batches do not fill.
    """

    norm: Norm
    epsilon: float
    attacks: tuple[str, ...] = ("natural", "pgd-20", "autoattack")
    batch_size: Positive[int] | None = None
    seed: NotNegative[int] = 0
    n_images: Positive[int] | None = None
    attack_all: bool = False
    n_check_images: NotNegative[int] = 128
    n_iterations: int = 100
    n_queries: Positive[int] = 5000
    precision: SuitePrecision = "float32"

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)
        if not self.attacks:
            raise InvalidConfigError(
                f"`attacks` must name at least one attack, but got none. There is {KNOWN}."
            )
        for name in self.attacks:
            require_attack_name(name)
        require(self.n_iterations >= 3, "n_iterations >= 3", f"n_iterations={self.n_iterations}")

    def size_on(self, device: str) -> int:
        """The size of batches on a kind of device, such as `cpu`."""
        return self.batch_size or (250 if device == "cpu" else 1000)

    @property
    def names(self) -> tuple[str, ...]:
        """`natural`, then each attack once; `autoattack` is replaced by its components."""
        named = ("natural", *self.attacks)
        parts = [AUTOATTACK if name == "autoattack" else (name,) for name in named]
        return tuple(dict.fromkeys(name for part in parts for name in part))


def require_attack_name(name: str) -> None:
    """Check that a suite has an attack of this name.

    Raises:
        InvalidConfigError: it has not; the message lists the names.
    """
    plain = name in ("natural", "fgsm", "autoattack", *LIBRARY_ATTACKS)
    if not plain and not _ITERATED.fullmatch(name):
        raise InvalidConfigError(
            f"An attack must have a known name, but got {name!r}. There is {KNOWN}; K is the "
            "number of steps, and pgd-100x5 has 5 restarts."
        )


def gradient_attack(name: str, norm: Norm, epsilon: float) -> tuple[FGSM | PGD, int] | None:
    """The attack that `name` means and its number of random starts; None for any other name.

    PGD and CW (PGD on the margin) take steps of 2.5 epsilon / K, so that they can cross the ball
    (Madry et al. 2018). MIM takes steps of epsilon / K with momentum 1, from the image itself (Dong
    et al. 2018) or, with restarts, from random points. In L1 all steps are three times as long.
    """
    if name == "fgsm":
        return FGSM(norm=norm, epsilon=epsilon), 1
    match = _ITERATED.fullmatch(name)
    if match is None:
        return None
    kind, steps, restarts = match[1], int(match[2]), int(match[3] or 1)
    if kind == "mim":
        attack = PGD(
            norm=norm,
            epsilon=epsilon,
            steps=steps,
            relative_step_size=1 / steps,
            random_start=restarts > 1,
            momentum=1.0,
        )
        return attack, restarts
    return standard_pgd(norm, epsilon, steps, is_margin=kind == "cw"), restarts


def standard_pgd(norm: Norm, epsilon: float, steps: int, *, is_margin: bool = False) -> PGD:
    """PGD on cross-entropy or margin whose relative steps, at most 1, add up to 2.5."""
    return PGD(
        norm=norm,
        epsilon=epsilon,
        steps=steps,
        relative_step_size=min(1.0, 2.5 / steps),
        loss="margin" if is_margin else "cross-entropy",
    )


def longest_pgd(config: SuiteConfig) -> int:
    """The steps of the longest PGD in the suite, at least 50, by which convergence is judged."""
    matches = [_ITERATED.fullmatch(name) for name in config.names]
    return max([50, *(int(match[2]) for match in matches if match and match[1] == "pgd")])


def apgd_restarts(norm: Norm) -> int:
    """The number of random starts of APGD-CE and APGD-DLR in standard AutoAttack."""
    return 5 if norm == "l1" else 1


def n_targets(name: str, norm: Norm, n_classes: int) -> int:
    """The number of target classes of APGD-T or FAB-T: AutoAttack's, or all wrong ones if fewer."""
    wanted = 5 if norm == "l1" and name == "apgd-t" else 9
    return min(wanted, n_classes - 1)
