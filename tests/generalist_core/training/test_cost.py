"""Cost in forward images: forward 1, input gradient 1, weight gradient 1 more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from generalist_core.config import (
    FGSM,
    MART,
    PGD,
    TRADES,
    EvaluationConfig,
    ExpertConfig,
    NamedAttack,
    SeveralAttacks,
)
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import RUNS, Counting, linear_net, tiny_dataset, train_to, two_experts

PGD10 = PGD(epsilon=0.1, steps=10)
KL10 = PGD(epsilon=0.1, steps=10, loss="kl")


BOTH = (PGD10, PGD(epsilon=0.5, norm="l2"))


@pytest.mark.parametrize(
    ("expert", "cost"),
    [
        (ExpertConfig(name="a"), 3),
        (ExpertConfig(name="a", attack=PGD10), 23),
        (ExpertConfig(name="a", attack=FGSM(epsilon=0.1)), 5),
        (ExpertConfig(name="a", attack=KL10, loss=TRADES()), 27),
        (ExpertConfig(name="a", attack=PGD10, loss=MART()), 26),
        (ExpertConfig(name="a", attack=SeveralAttacks(parts=BOTH)), 42 + 3),
        (ExpertConfig(name="a", attack=SeveralAttacks(parts=BOTH, combine="average")), 40 + 6),
        (
            ExpertConfig(
                name="a", attack=SeveralAttacks(parts=BOTH, combine="average"), loss=TRADES()
            ),
            40 + 12,
        ),
    ],
)
def test_updates(expert: ExpertConfig, cost: int) -> None:
    assert update_cost(expert) == cost


def test_evaluations() -> None:
    attacks = (NamedAttack(name="a", attack=PGD10), NamedAttack(name="b", attack=FGSM(epsilon=0.1)))
    assert evaluation_cost(EvaluationConfig(attacks=attacks)) == 1 + 21 + 3


def test_a_run_costs_the_sum_of_its_parts() -> None:
    """Two experts on 16 of 20 images per epoch; 12 validation images under PGD-2."""
    trainer = GeneralistTrainer(two_experts(), tiny_dataset())
    assert trainer.train_epoch()["forward_images"] == 16 * (3 + (2 * 2 + 3))
    attacked = 1 + 2 * 2 + 1
    assert cost_of(trainer, trainer.evaluate) == 12 * 1 + 12 * attacked
    train_to(trainer, 3)
    assert cost_of(trainer, trainer.evaluate) == 12 * attacked
    assert cost_of(trainer, trainer.release) == (3 + 1) * 12 * attacked


def cost_of(trainer: GeneralistTrainer, work: Callable[[], object]) -> int:
    before = trainer.forward_images
    work()
    return trainer.forward_images - before


def test_what_is_in_training_is_judged_on_fewer_images_than_what_is_released() -> None:
    evaluation = dataclasses.replace(
        two_experts().evaluation, n_images=10, n_images_during_training=4
    )
    trainer = GeneralistTrainer(two_experts(evaluation=evaluation), tiny_dataset())
    assert cost_of(trainer, trainer.evaluate) == 4 * 1 + 4 * 6
    assert cost_of(trainer, lambda: trainer.evaluate_expert("natural")) == 4 * 1
    assert cost_of(trainer, lambda: trainer.evaluate_expert("robust")) == 4 * 6
    assert cost_of(trainer, lambda: trainer.release([0.5])) == 10 * 6
    train_to(trainer, 3)
    assert cost_of(trainer, trainer.evaluate) == 4 * 6


@pytest.mark.parametrize(("n_images", "in_training", "judged"), [(10, 99, 10), (None, 99, 12)])
def test_what_is_in_training_is_judged_on_no_more_images_than_releases(
    n_images: int | None, in_training: int, judged: int
) -> None:
    evaluation = dataclasses.replace(
        two_experts().evaluation, n_images=n_images, n_images_during_training=in_training
    )
    trainer = GeneralistTrainer(two_experts(evaluation=evaluation), tiny_dataset())
    assert cost_of(trainer, lambda: trainer.evaluate_expert("natural")) == judged


def test_the_forwards_of_an_evaluation_are_those_that_it_counts() -> None:
    """Images go through the model once for each forward, and each gradient adds 1 to the cost."""
    evaluation = dataclasses.replace(two_experts().evaluation, n_images_during_training=5)
    trainer = GeneralistTrainer(
        two_experts(evaluation=evaluation),
        tiny_dataset(),
        model=lambda n, shape: Counting(linear_net(n, shape)),
    )
    model = trainer.evaluator.model
    for work, n_gradients in (
        (lambda: trainer.evaluate_expert("natural"), 0),
        (lambda: trainer.evaluate_expert("robust"), 2 * 5),
        (lambda: trainer.release([0.5]), 2 * 12),
    ):
        before = model.n_images
        assert cost_of(trainer, work) == model.n_images - before + n_gradients


@pytest.mark.parametrize("combine", ["worst", "steepest", "average", "random", "adaptive"])
def test_the_forwards_of_several_attacks_are_those_that_happen(combine: str) -> None:
    """Two steps of three attacks, or of one; three forwards to choose; one update or three."""
    counted = {
        "worst": (3 * 2, 3, 1),
        "steepest": (2, 2 * 3, 1),
        "average": (3 * 2, 0, 3),
        "random": (2, 0, 1),
        "adaptive": (2, 1, 1),
    }
    gradients, choices, updates = counted[combine]
    trainer = GeneralistTrainer(
        RUNS[f"{combine} of norms"],
        tiny_dataset(),
        model=lambda n, shape: Counting(linear_net(n, shape)),
    )
    cost = trainer.train_epoch()["forward_images"]
    assert trainer.expert("robust").model.n_images == 16 * (gradients + choices + updates)
    assert cost == 16 * (3 + 2 * gradients + choices + 3 * updates)


@pytest.mark.parametrize("name", ["paper", "adamw, trades", "mixup, mart"])
def test_the_forwards_in_the_cost_are_those_that_happen(name: str) -> None:
    """A forward of an attack has one gradient, except KL's on clean images; an update has two."""
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
