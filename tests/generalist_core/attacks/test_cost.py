"""What adversarial images cost: forward 1, input gradient 1 more."""

from __future__ import annotations

import pytest

from generalist_core.attacks.cost import attack_cost
from generalist_core.config import FGSM, NFGSM, PGD, Attack, MultiTargeted, SeveralAttacks

PGD10 = PGD(epsilon=0.1, steps=10)
KL10 = PGD(epsilon=0.1, steps=10, loss="kl")
BOTH = (PGD10, PGD(epsilon=0.5, norm="l2"))


@pytest.mark.parametrize(
    ("attack", "cost"),
    [
        (FGSM(epsilon=0.1), 2),
        (NFGSM(epsilon=0.1), 2),
        (PGD10, 20),
        (KL10, 21),
        (MultiTargeted(epsilon=0.1), 1 + 31),
        (MultiTargeted(epsilon=0.1, steps=4, n_targets=4), 1 + 2 * 9),
        (SeveralAttacks(parts=BOTH), 2 * 20 + 2),
        (SeveralAttacks(parts=BOTH, combine="steepest"), 20 + 2 * 10),
        (SeveralAttacks(parts=BOTH, combine="average"), 2 * 20),
        (SeveralAttacks(parts=BOTH, combine="random"), 20),
        (SeveralAttacks(parts=BOTH, combine="adaptive"), 20 + 1),
    ],
)
def test_attacks(attack: Attack, cost: int) -> None:
    assert attack_cost(attack) == cost
