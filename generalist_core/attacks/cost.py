"""What an attack costs in forward images, which is known before it runs.

One forward of one image costs 1, and its gradient with respect to the image 1 more.
"""

from __future__ import annotations

from generalist_core.attacks.gradient import n_gradients
from generalist_core.config import PGD, Attack, CustomAttack, MultiTargeted, SeveralAttacks
from generalist_core.config.attacks import DRAWN

FORWARD = 1

INPUT_GRADIENT = 1


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
