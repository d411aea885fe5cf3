"""Cost as DESIGN.md counts it: forward 1, input gradient 1, weight gradient 1 more."""

from __future__ import annotations

import pytest

from generalist_core.config import (
    FGSM,
    MART,
    NFGSM,
    PGD,
    TRADES,
    Attack,
    EvaluationConfig,
    ExpertConfig,
    NamedAttack,
)
from generalist_core.cost import attack_cost, evaluation_cost, update_cost
from generalist_core.trainer import GeneralistTrainer
from tests.helpers import RUNS, Counting, linear_net, tiny_dataset, two_experts

PGD10 = PGD(epsilon=0.1, steps=10)
KL10 = PGD(epsilon=0.1, steps=10, loss="kl")


@pytest.mark.parametrize(
    ("attack", "cost"), [(FGSM(epsilon=0.1), 2), (NFGSM(epsilon=0.1), 2), (PGD10, 20), (KL10, 21)]
)
def test_attacks(attack: Attack, cost: int) -> None:
    assert attack_cost(attack) == cost


@pytest.mark.parametrize(
    ("expert", "cost"),
    [
        (ExpertConfig(name="a"), 3),
        (ExpertConfig(name="a", attack=PGD10), 23),
        (ExpertConfig(name="a", attack=FGSM(epsilon=0.1)), 5),
        (ExpertConfig(name="a", attack=KL10, loss=TRADES()), 27),
        (ExpertConfig(name="a", attack=PGD10, loss=MART()), 26),
    ],
)
def test_updates(expert: ExpertConfig, cost: int) -> None:
    assert update_cost(expert) == cost


def test_evaluations() -> None:
    attacks = (NamedAttack(name="a", attack=PGD10), NamedAttack(name="b", attack=FGSM(epsilon=0.1)))
    assert evaluation_cost(EvaluationConfig(attacks=attacks)) == 1 + 21 + 3


def test_a_run_costs_the_sum_of_its_parts() -> None:
    """Two experts on 16 of 20 images an epoch; 12 validation images under PGD-2."""
    trainer = GeneralistTrainer(two_experts(), tiny_dataset())
    assert trainer.train_epoch()["forward_images"] == 16 * (3 + (2 * 2 + 3))
    before = trainer.forward_images
    assert trainer.evaluate()["forward_images"] - before == 3 * 12 * (1 + 2 * 2 + 1)
    before = trainer.forward_images
    trainer.release()
    assert trainer.forward_images - before == 3 * 12 * (1 + 2 * 2 + 1)


@pytest.mark.parametrize("name", ["paper", "adamw, trades", "mixup, mart"])
def test_the_forwards_in_the_cost_are_those_that_happen(name: str) -> None:
    """All but one gradient a forward, two an update: cost = 2 forwards + updated images."""
    trainer = GeneralistTrainer(
        RUNS[name], tiny_dataset(), model=lambda n, shape: Counting(linear_net(n, shape))
    )
    cost = trainer.train_epoch()["forward_images"]
    crafted = n_updated = 0
    for expert in trainer.experts:
        updates = 16 * (2 if isinstance(expert.config.loss, TRADES | MART) else 1)
        clean = isinstance(expert.config.attack, PGD) and expert.config.attack.loss == "kl"
        crafted += 2 * (expert.model.n_images - updates) - 16 * clean
        n_updated += updates
    assert cost == crafted + 3 * n_updated
