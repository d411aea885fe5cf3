"""Objectives, and which values of an evaluation are refused."""

from __future__ import annotations

from generalist_core.config import FGSM, NFGSM, EvaluationConfig, NamedAttack
from tests.helpers.problems import three_experts
from tests.helpers.refused import Broken, refusal_of

UNDER_ATTACK = NamedAttack(name="robust", attack=FGSM(epsilon=0.1))

BROKEN: list[Broken] = [
    (NamedAttack, {"name": "natural", "attack": FGSM(epsilon=0.1)}, "natural", "'natural'"),
    (NamedAttack, {"name": "a/b", "attack": FGSM(epsilon=0.1)}, "identifier", "'a/b'"),
    (NamedAttack, {"name": "a", "attack": NFGSM(epsilon=0.1)}, "must stay in its ball", "NFGSM"),
    (EvaluationConfig, {"attacks": ()}, "at least one evaluation attack", "none"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,) * 2}, "different names", "['robust', 'robust']"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "every_epochs": 0}, "every_epochs > 0", "=0"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "n_images": 0}, "n_images > 0", "n_images=0"),
    (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "batch_size": 0}, "batch_size > 0", "=0"),
    (
        EvaluationConfig,
        {"attacks": (UNDER_ATTACK,), "release_ratios": ()},
        "at least one release ratio",
        "none",
    ),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)


def test_objectives_are_natural_and_one_per_attack() -> None:
    assert three_experts().evaluation.objectives == ("natural", "robust", "sparse")
