"""Cost in forward images: deterministic, so that methods compare without a clock.

One forward of one image costs 1, the gradient with respect to the image 1 more, with respect to
the weights 1 more. Counted per image.
"""

from __future__ import annotations

from generalist_core.attacks.gradient import n_gradients
from generalist_core.config import (
    MART,
    PGD,
    TRADES,
    Attack,
    CrossEntropy,
    CustomAttack,
    CustomLoss,
    EvaluationConfig,
    ExpertConfig,
)

FORWARD = 1

INPUT_GRADIENT = 1

UPDATE = 3
"""Forward and both gradients: an update propagates through inputs of layers as well."""


def attack_cost(attack: Attack) -> int:
    """Crafting one adversarial image; of the user's own attack what it declares."""
    if isinstance(attack, CustomAttack):
        return attack.forward_images
    clean = FORWARD if isinstance(attack, PGD) and attack.loss == "kl" else 0
    return clean + n_gradients(attack) * (FORWARD + INPUT_GRADIENT)


def update_cost(expert: ExpertConfig) -> int:
    """One image of one training step; TRADES and MART update on clean and adversarial images."""
    match expert.loss:
        case CustomLoss():
            n_updates = expert.loss.n_forwards
        case TRADES() | MART():
            n_updates = 2
        case CrossEntropy():
            n_updates = 1
    return (attack_cost(expert.attack) if expert.attack else 0) + n_updates * UPDATE


def evaluation_cost(evaluation: EvaluationConfig) -> int:
    """Judging one image: natural accuracy, and crafting and classifying under each attack."""
    return FORWARD + sum(attack_cost(a.attack) + FORWARD for a in evaluation.attacks)
