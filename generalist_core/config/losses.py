"""The losses that experts minimise, and the ways in which they may mix images and labels.

A custom loss is given mixed labels as class probabilities (n, classes).
"""

from __future__ import annotations

from dataclasses import dataclass

from generalist_core.config.fields import NotNegative, Positive, with_checked_fields


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class CrossEntropy:
    """Cross-entropy, on adversarial images if the expert has an attack (Madry et al. 2018)."""


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class TRADES:
    """Cross-entropy on clean images plus `beta` times the divergence on adversarial ones.

    Zhang et al. 2019, equation 5; its attack maximises the same divergence (`PGD(loss="kl")`).
    """

    beta: NotNegative[float] = 6.0


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class MART:
    """Boosted cross-entropy plus `beta` times a misclassification-weighted divergence.

    Wang et al. 2020, equation 11.
    """

    beta: NotNegative[float] = 5.0


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class CustomLoss:
    """A custom loss: a function named `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    `n_forwards` is the most forwards that it may take per image, each of which costs as much as an
    update. `digest` is as in `CustomAttack`.
    """

    function: str
    n_forwards: Positive[int] = 1
    digest: str = ""


Loss = CrossEntropy | TRADES | MART | CustomLoss


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class MixUp:
    """Convex combinations of images and labels (Zhang et al. 2018), by torchvision."""

    alpha: Positive[float] = 0.2


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class CutMix:
    """Images with a patch of another image (Yun et al. 2019), by torchvision."""

    alpha: Positive[float] = 1.0
