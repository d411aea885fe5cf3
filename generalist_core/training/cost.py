"""Cost in forward images: deterministic, so that methods compare without a clock.

One forward of one image costs 1, its gradient with respect to the image 1 more, and with respect to
the weights 1 more. All functions give the cost per image.
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
    MultiTargeted,
    SeveralAttacks,
)
from generalist_core.config.attacks import DRAWN

FORWARD = 1

INPUT_GRADIENT = 1

UPDATE = 3
"""A forward and both gradients: an update also propagates through the inputs of layers."""


def attack_cost(attack: Attack) -> int:
    """The cost of crafting one adversarial image.

    A custom attack declares what it costs at most. What MultiTargeted costs depends on the images,
    and is taken to be half of what it may be.
    """
    if isinstance(attack, CustomAttack):
        return attack.forward_images
    if isinstance(attack, MultiTargeted):
        step = FORWARD + INPUT_GRADIENT
        return FORWARD + attack.n_targets * (attack.steps * step + FORWARD) // 2
    if isinstance(attack, SeveralAttacks):
        costs = [attack_cost(part) for part in attack.parts]
        crafting = costs[0] if attack.combine in ("steepest", *DRAWN) else sum(costs)
        n_chosen = {"worst": 1, "steepest": attack.parts[0].steps}.get(attack.combine, 0)
        return crafting + (n_chosen * len(costs) + (attack.combine == "adaptive")) * FORWARD
    clean = FORWARD if isinstance(attack, PGD) and attack.loss == "kl" else 0
    return clean + n_gradients(attack) * (FORWARD + INPUT_GRADIENT)


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
