"""Objectives, and which values of an evaluation are refused."""

from __future__ import annotations

import dataclasses

from generalist_core.config import FGSM, NFGSM, PGD, EvaluationConfig, NamedAttack, SeveralAttacks
from tests.helpers.problems import three_experts
from tests.helpers.refused import Broken, refusal_of

UNDER_ATTACK = NamedAttack(name="robust", attack=FGSM(epsilon=0.1))

BROKEN: list[Broken] = [
    (NamedAttack, {"name": "natural", "attack": FGSM(epsilon=0.1)}, "natural", "'natural'"),
    (NamedAttack, {"name": "union", "attack": FGSM(epsilon=0.1)}, "other than", "'union'"),
    (NamedAttack, {"name": "mean", "attack": FGSM(epsilon=0.1)}, "other than", "'mean'"),
    (NamedAttack, {"name": "a/b", "attack": FGSM(epsilon=0.1)}, "identifier", "'a/b'"),
    (NamedAttack, {"name": "a", "attack": NFGSM(epsilon=0.1)}, "must stay in one ball", "NFGSM"),
    (
        NamedAttack,
        {"name": "a", "attack": SeveralAttacks(parts=(PGD(epsilon=0.1), PGD(epsilon=0.2)))},
        "must stay in one ball",
        "SeveralAttacks",
    ),
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
    *[
        (EvaluationConfig, {"attacks": (UNDER_ATTACK,), "objectives": objectives}, law, got)
        for objectives, law, got in [
            ((), "must be 'natural' and then others", "none"),
            (("natural",), "must be 'natural' and then others", "natural"),
            (("robust", "natural"), "must be 'natural' and then others", "robust, natural"),
            (("natural", "union", "union"), "each once", "natural, union, union"),
            (("natural", "l2"), "one of natural, robust, union, mean", "l2"),
        ]
    ],
    (
        EvaluationConfig,
        {"attacks": three_experts().evaluation.attacks, "objectives": ("natural", "robust")},
        "Every evaluation attack must be part of an objective",
        "sparse",
    ),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)


def test_objectives_are_by_default_natural_and_one_per_attack() -> None:
    assert three_experts().evaluation.objective_names == ("natural", "robust", "sparse")


def test_objectives_are_chosen_by_name_and_stay_when_attacks_change() -> None:
    evaluation = three_experts().evaluation
    chosen = dataclasses.replace(evaluation, objectives=("natural", "union"))
    assert chosen.objective_names == ("natural", "union")
    fewer = {"attacks": evaluation.attacks[:1]}
    assert dataclasses.replace(chosen, **fewer).objective_names == ("natural", "union")
    assert dataclasses.replace(evaluation, **fewer).objective_names == ("natural", "robust")
