"""The attacks that experts train on and models are evaluated under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from generalist_core.config.fields import NotNegative, Positive, with_checked_fields
from generalist_core.validation import InvalidConfigError, require

Norm = Literal["linf", "l2", "l1"]

NORMS: tuple[Norm, ...] = get_args(Norm)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class FGSM:
    """One step of length `epsilon` from the image (Goodfellow et al. 2015)."""

    epsilon: float
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class NFGSM:
    """One unprojected step from a noisy image (de Jorge et al. 2022).

    The noise is uniform with radius `noise_scale * epsilon`. The noisy image and the result are
    clipped to [0, 1] but not to the ball: it is an attack for training, not for evaluation.
    """

    epsilon: float
    noise_scale: NotNegative[float] = 2.0
    relative_step_size: Positive[float] = 1.0

    def __post_init__(self) -> None:
        require_ball("linf", self.epsilon)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class PGD:
    """Projected gradient ascent (Madry et al. 2018) from a uniform start in the ball.

    A step has length `relative_step_size * epsilon`, and three times that in L1, where the ball has
    3, then 2 times its radius before the last 40 % of the steps (Croce & Hein 2021). `momentum` > 0
    accumulates gradients that are normalised by their L1 norm (MIM, Dong et al. 2018). `loss` is
    what is maximised: the cross-entropy, the `margin` of Carlini & Wagner (2017), or the `kl`
    divergence from the prediction on the clean image (TRADES, Zhang et al. 2019), which starts at
    the image plus 0.001 times a standard normal draw, as its authors do.
    """

    epsilon: float
    norm: Norm = "linf"
    steps: Positive[int] = 10
    relative_step_size: Positive[float] = 0.25
    random_start: bool = True
    momentum: NotNegative[float] = 0.0
    loss: Literal["cross-entropy", "margin", "kl"] = "cross-entropy"

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)
        if self.loss == "kl" and not self.random_start:
            raise InvalidConfigError(
                "`random_start` must be True with loss='kl', but got random_start=False. At the "
                "clean image the gradient of the divergence is zero."
            )

    @property
    def step_size(self) -> float:
        """The length of a step in the norm.

        In L1 it is tripled, because a pixel that meets 0 or 1 on the way loses its part of a step,
        and because only 40 % of the steps are taken in the ball itself. On a linear model of 72
        pixels, any number of steps at radius 2 then gains at least 95 % of what the optimum does.
        """
        length = self.relative_step_size * self.epsilon
        return 3 * length if self.norm == "l1" else length


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class MultiTargeted:
    """Gradient ascent towards one wrong class after the other (Gowal et al. 2019).

    The classes are the `n_targets` with the largest wrong logits at the image, in this order. For
    each, `steps` steps raise its logit over the true one from a uniform start. Their lengths fall
    from 2 (in L1 from 6) times the radius of the ball towards zero, and in L2 and L1 the ball
    shrinks as that of `PGD` in L1 does: small steps in the small ball miss much where gradients are
    masked in one norm, as those of experts that were trained in another. Images that are
    misclassified are attacked no further, so it costs one to three times as much as PGD with as
    many steps. It is for evaluation, not for training.
    """

    epsilon: float
    norm: Norm = "linf"
    steps: Positive[int] = 10
    n_targets: Positive[int] = 3

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)


Combine = Literal["worst", "steepest", "average", "random", "adaptive"]

DRAWN = ("random", "adaptive")
"""The ways to combine several attacks in which one is drawn for each batch."""


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SeveralAttacks:
    """Several attacks, usually one per norm, that one expert is trained on.

    It is trained on the `worst` for each image, which has the largest cross-entropy (MAX of Tramer
    & Boneh 2019); on the `steepest` path, which takes the step of the attack that raises the
    cross-entropy of the image most, from the image itself and in each ball alone (MSD of Maini et
    al. 2020); on the `average` of its losses under all (AVG of the same); or on one that is
    drawn for each batch, from attacks of equal cost: at `random` with equal probabilities, or
    `adaptive`, in proportion to running averages of the errors under each (E-AT of Croce & Hein
    2022). They are for training, not for evaluation.
    """

    parts: tuple[PGD, ...]
    combine: Combine = "worst"

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise InvalidConfigError(
                f"`parts` must be two or more attacks, but got {len(self.parts)}. Use PGD alone."
            )
        ways = {(part.steps, part.loss, part.momentum) for part in self.parts}
        if self.combine == "steepest" and ways != {(self.parts[0].steps, "cross-entropy", 0.0)}:
            raise InvalidConfigError(
                "`parts` must have the same steps, loss='cross-entropy' and momentum=0 with "
                f"combine='steepest', but got steps={[part.steps for part in self.parts]}, loss="
                f"{[part.loss for part in self.parts]} and momentum="
                f"{[part.momentum for part in self.parts]}. They share each gradient."
            )
        costs = {(part.steps, part.loss == "kl") for part in self.parts}
        if self.combine in DRAWN and len(costs) > 1:
            raise InvalidConfigError(
                f"`parts` must cost the same with combine={self.combine!r}, but got steps="
                f"{[part.steps for part in self.parts]} and loss="
                f"{[part.loss for part in self.parts]}. Give all the same steps and loss."
            )


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class CustomAttack:
    """A custom attack: a function named `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    It must stay in the ball. `forward_images` is the most that an adversarial image may cost: 1 per
    forward and 1 more per input gradient. Training is charged that, an evaluation what was spent.
    `digest` is the digest of the file, which a run fills in when it begins: a function whose file
    has changed is refused.
    """

    function: str
    epsilon: float
    norm: Norm = "linf"
    forward_images: Positive[int]
    digest: str = ""

    def __post_init__(self) -> None:
        require_ball(self.norm, self.epsilon)


Attack = FGSM | NFGSM | PGD | MultiTargeted | SeveralAttacks | CustomAttack


def require_ball(norm: str, epsilon: float) -> None:
    """Check the radius of a ball of allowed perturbations in a norm."""
    require(epsilon >= 0, "epsilon >= 0", f"epsilon={epsilon} for {norm}", "A radius is a length.")
    if norm == "linf":
        cure = f"Images live in [0, 1]; did you mean {epsilon:g}/255?"
        require(epsilon <= 1, "epsilon <= 1", f"epsilon={epsilon} for linf", cure)
