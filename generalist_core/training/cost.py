"""Cost in forward images: deterministic, so that methods compare without a clock.

One forward of one image costs 1, its gradient with respect to the image 1 more, and with respect to
the weights 1 more. All functions give the cost per image.
"""

from __future__ import annotations

from generalist_core.attacks.cost import FORWARD, attack_cost
from generalist_core.config import (
    MART,
    TRADES,
    CrossEntropy,
    CustomLoss,
    EvaluationConfig,
    ExpertConfig,
    SeveralAttacks,
)

UPDATE = 3
"""A forward and both gradients: an update also propagates through the inputs of layers."""


def update_cost(expert: ExpertConfig) -> int:
    """The cost of one image in a training step; TRADES and MART update on two images, not one.

    An update on the average over several attacks is one on as many images.
    """
    match expert.loss:
        case CustomLoss():
            n_updates = expert.loss.n_forwards
        case TRADES() | MART():
            n_updates = 2
        case CrossEntropy():
            n_updates = 1
    if isinstance(expert.attack, SeveralAttacks) and expert.attack.combine == "average":
        n_updates *= len(expert.attack.parts)
    return (attack_cost(expert.attack) if expert.attack else 0) + n_updates * UPDATE


def evaluation_cost(evaluation: EvaluationConfig) -> int:
    """The cost of judging one image: natural accuracy, and each attack with its classification.

    What a learner is charged is what was spent, which attacks that spare images make less.
    """
    return FORWARD + sum(attack_cost(a.attack) + FORWARD for a in evaluation.attacks)
