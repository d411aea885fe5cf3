"""What an attack suite runs: attacks by name, on which images, under which seed.

Nothing here imports torch, so that the command line stays light.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from generalist_core.config import FGSM, PGD, Norm, require_ball
from generalist_core.validation import InvalidConfigError, require, require_positive

AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The components of standard AutoAttack (Croce & Hein 2020), in its order."""

LIBRARY_ATTACKS = (*AUTOATTACK, "apgd-dlr")
"""The attacks that pyautoattack runs."""

KNOWN = "natural, fgsm, pgd-K, mim-K, cw-K, apgd-ce, apgd-dlr, apgd-t, fab-t, square, autoattack"

_ITERATED = re.compile(r"(pgd|mim|cw)-([1-9]\d*)(?:x([1-9]\d*))?")


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """The attacks by name in one ball, and the first `n_images` images (all if None).

    Names are `natural`; `fgsm`; `pgd-K`, `mim-K` and `cw-K` with K steps, as in `pgd-100x5` with
    restarts; `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t`, `square`; and `autoattack` for its four
    standard components. Their order is of no account: the cheap ones run first. With `attack_all`
    every attack sees every naturally correct image, else only those that none has broken yet.
    `n_check_images` images are probed for signs of failed attacks (0: none).

    `n_iterations` and `n_queries` are those of AutoAttack; fewer overstate robustness, and the
    result says so.
    """

    norm: Norm
    epsilon: float
    attacks: tuple[str, ...] = ("natural", "pgd-20", "autoattack")
    batch_size: int = 250
    seed: int = 0
    n_images: int | None = None
    attack_all: bool = False
    n_check_images: int = 128
    n_iterations: int = 100
    n_queries: int = 5000

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)
        require(len(self.attacks) > 0, "at least one attack", "none", f"There is {KNOWN}.")
        for name in self.attacks:
            require_attack_name(name)
        require_positive("batch_size", self.batch_size)
        require(self.seed >= 0, "seed >= 0", f"seed={self.seed}")
        require(self.n_images is None or self.n_images > 0, "n_images > 0", f"{self.n_images}")
        require(self.n_check_images >= 0, "n_check_images >= 0", f"{self.n_check_images}")
        require(self.n_iterations >= 3, "n_iterations >= 3", f"n_iterations={self.n_iterations}")
        require_positive("n_queries", self.n_queries)

    @property
    def names(self) -> tuple[str, ...]:
        """`natural`, then each attack once, `autoattack` as its components."""
        named = ("natural", *self.attacks)
        parts = [AUTOATTACK if name == "autoattack" else (name,) for name in named]
        return tuple(dict.fromkeys(name for part in parts for name in part))


def require_attack_name(name: str) -> None:
    """Check that `name` is one of the suite's.

    Raises:
        InvalidConfigError: it is not; the message lists what there is.
    """
    plain = name in ("natural", "fgsm", "autoattack", *LIBRARY_ATTACKS)
    if not plain and not _ITERATED.fullmatch(name):
        cure = f"There is {KNOWN}; K counts steps, and pgd-100x5 has 5 restarts."
        raise InvalidConfigError(f"`a known attack` must be named, but got {name!r}. {cure}")


def gradient_attack(name: str, norm: Norm, epsilon: float) -> tuple[FGSM | PGD, int] | None:
    """The attack that `name` means and its number of random starts; None if it is not our own.

    PGD and CW (PGD on the margin) step 2.5 epsilon / K, so that they can cross the ball (Madry et
    al. 2018); MIM steps epsilon / K with momentum 1, from the image itself (Dong et al. 2018) or,
    with restarts, from random points.
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
    """PGD on cross-entropy or margin whose steps add up to 2.5 epsilon; none exceeds the ball."""
    return PGD(
        norm=norm,
        epsilon=epsilon,
        steps=steps,
        relative_step_size=min(1.0, 2.5 / steps),
        loss="margin" if is_margin else "cross-entropy",
    )


def longest_pgd(config: SuiteConfig) -> int:
    """The steps of the longest PGD in the suite, 50 at least: what convergence is judged by."""
    matches = [_ITERATED.fullmatch(name) for name in config.names]
    return max([50, *(int(match[2]) for match in matches if match and match[1] == "pgd")])


def apgd_restarts(norm: Norm) -> int:
    """Random starts of APGD-CE and APGD-DLR in standard AutoAttack."""
    return 5 if norm == "l1" else 1


def n_targets(name: str, norm: Norm, n_classes: int) -> int:
    """Target classes of APGD-T or FAB-T: AutoAttack's number, or all the wrong ones if fewer."""
    wanted = 5 if norm == "l1" and name == "apgd-t" else 9
    return min(wanted, n_classes - 1)
