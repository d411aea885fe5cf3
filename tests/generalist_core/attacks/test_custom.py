"""Custom losses and attacks: equal to the built-in ones that they imitate, and held to the laws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist_core.attacks.cost import attack_cost
from generalist_core.attacks.gradient import perturb
from generalist_core.config import (
    MART,
    PGD,
    TRADES,
    CrossEntropy,
    CustomAttack,
    CustomLoss,
    ExpertConfig,
    NamedAttack,
    Norm,
    TrainConfig,
)
from generalist_core.config.codec import from_json, replace_at, to_json
from generalist_core.training.cost import evaluation_cost, update_cost
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from generalist_core.user_code import pinned
from generalist_core.validation import EvaluationError, InvalidConfigError
from tests.helpers import custom_functions
from tests.helpers.problems import (
    RADII,
    LinearNet,
    lengths,
    noise,
    random_images,
    same_bits,
    tiny_dataset,
    train_to,
    two_experts,
    with_expert,
)

FILE = Path(custom_functions.__file__)
LIKE_PGD = PGD(epsilon=0.1, steps=3)
X, Y = random_images(5, 2, 4, 4), torch.tensor([0, 1, 1, 0, 1])


def custom_attack(name: str, forward_images: int = 6, epsilon: float = 0.1) -> CustomAttack:
    return CustomAttack(function=f"{FILE}:{name}", epsilon=epsilon, forward_images=forward_images)


def custom_loss(name: str, n_forwards: int = 1) -> CustomLoss:
    return CustomLoss(function=f"{FILE}:{name}", n_forwards=n_forwards)


def test_a_custom_pgd_is_pgd_to_the_bit() -> None:
    net = LinearNet((2, 4, 4))
    images = perturb(custom_attack("pgd"), net, X, Y, noise())
    assert torch.equal(images, perturb(LIKE_PGD, net, X, Y, noise()))
    assert not torch.equal(images, X)


@pytest.mark.parametrize("n_accumulations", [1, 2])
@pytest.mark.parametrize(
    ("custom", "built_in"),
    [(custom_loss("cross_entropy"), CrossEntropy()), (custom_loss("trades", 2), TRADES(beta=6.0))],
    ids=["cross-entropy", "trades"],
)
def test_a_run_with_custom_functions_is_the_run_without(
    custom: CustomLoss, built_in: CrossEntropy | TRADES | MART, n_accumulations: int
) -> None:
    """Weights, points and cost are equal, with the attack in training and evaluation."""

    def ended(attack: PGD | CustomAttack, loss: Any) -> GeneralistTrainer:
        config = with_expert(two_experts(), "robust", attack=attack, loss=loss)
        judged = (NamedAttack(name="robust", attack=attack),)
        evaluation = replace(config.evaluation, attacks=judged)
        config = replace(config, evaluation=evaluation, n_accumulations=n_accumulations)
        return train_to(GeneralistTrainer(config, tiny_dataset()), config.epochs)

    mine, theirs = ended(custom_attack("pgd"), custom), ended(LIKE_PGD, built_in)
    assert same_bits(mine.averages(), theirs.averages())
    assert mine.release([0.3]) == theirs.release([0.3])
    assert mine.forward_images == theirs.forward_images


def test_a_natural_expert_may_have_a_custom_loss() -> None:
    def ended(loss: CustomLoss | CrossEntropy) -> GeneralistTrainer:
        config = with_expert(two_experts(), "natural", loss=loss, label_smoothing=0.0)
        return train_to(GeneralistTrainer(config, tiny_dataset()), config.epochs)

    assert same_bits(
        ended(custom_loss("cross_entropy")).averages(), ended(CrossEntropy()).averages()
    )


def test_an_evaluation_is_charged_what_an_attack_spent() -> None:
    judged = (NamedAttack(name="robust", attack=custom_attack("pgd", 9)),)
    config = two_experts(evaluation=replace(two_experts().evaluation, attacks=judged))
    trainer = GeneralistTrainer(config, tiny_dataset())
    (point,) = trainer.release([1.0])
    assert trainer.forward_images == point.n_images * (1 + 6 + 1)


def test_cost_is_planned_as_it_is_declared() -> None:
    expert = ExpertConfig(name="a", attack=custom_attack("pgd", 9), loss=custom_loss("trades", 4))
    assert attack_cost(custom_attack("pgd", 9)) == 9
    assert update_cost(expert) == 9 + 4 * 3
    judged = (NamedAttack(name="robust", attack=custom_attack("pgd", 9)),)
    assert evaluation_cost(replace(two_experts().evaluation, attacks=judged)) == 1 + 9 + 1


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("leaves_the_ball", r"must stay in the linf ball of radius 0\.1"),
        ("leaves_the_box", r"must stay in \[0, 1\]"),
        ("is_no_number", "must return numbers"),
        ("crops", "must keep the shape"),
        ("rounds", r"images of type torch\.float64"),
        ("draws_from_torch", "global random state alone.*Draw from `noise`"),
        ("costs_more", r"at most forward_images=6 per image.*got 8\. Declare"),
    ],
)
def test_an_attack_that_breaks_a_law_is_told(name: str, law: str) -> None:
    with pytest.raises(EvaluationError, match=f"{name}.*{law}"):
        perturb(custom_attack(name), LinearNet((2, 4, 4)), X.round(), Y, noise())


@pytest.mark.parametrize("norm", RADII)
def test_an_attack_may_go_to_the_edge_of_its_ball_and_not_beyond(norm: Norm) -> None:
    inside, outside = (
        replace(custom_attack(name), norm=norm) for name in ("just_inside", "just_outside")
    )
    images = perturb(inside, LinearNet((2, 4, 4)), X, Y, noise())
    torch.testing.assert_close(lengths(images - X, norm), torch.full((5,), 0.1).double())
    with pytest.raises(EvaluationError, match=rf"{norm} ball of radius 0\.1, but got .* 0\.1001"):
        perturb(outside, LinearNet((2, 4, 4)), X, Y, noise())


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("one_loss_per_image", r"scalar with a gradient.*\[8\]"),
        ("detached", "scalar with a gradient"),
        ("two_forwards", r"at most n_forwards=1 per image.*got 2\. Declare"),
    ],
)
def test_a_loss_that_breaks_a_law_is_told(name: str, law: str) -> None:
    config = with_expert(two_experts(), "robust", loss=custom_loss(name))
    trainer = GeneralistTrainer(replace(config, batch_size=8), tiny_dataset())
    with pytest.raises(EvaluationError, match=f"{name}.*{law}"):
        train_to(trainer, config.epochs)


def with_custom_loss(function: str) -> TrainConfig:
    return with_expert(two_experts(), "robust", loss=CustomLoss(function=function))


@pytest.mark.parametrize("function", ["nowhere.py:loss", "no_such_module:loss", "loss", ""])
def test_a_function_that_is_not_there_is_told_before_any_work(function: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"FILE\.py:FUNCTION"):
        GeneralistTrainer(with_custom_loss(function), tiny_dataset())


def test_a_run_knows_the_file_that_it_began_with(tmp_path: Path) -> None:
    """A changed file has other warm-ups, and a pinned run refuses it."""
    file = tmp_path / "mine.py"
    file.write_text(FILE.read_text())
    config = pinned(with_custom_loss(f"{file}:cross_entropy"))
    assert pinned(config) == config == from_json(to_json(config), TrainConfig)
    before = warmup_keys(GeneralistTrainer(config, tiny_dataset()), "robust")
    file.write_text(FILE.read_text() + "\n# another\n")
    after = GeneralistTrainer(with_custom_loss(f"{file}:cross_entropy"), tiny_dataset())
    assert not set(before) & set(warmup_keys(after, "robust"))
    with pytest.raises(InvalidConfigError, match=r"mine\.py.*as it was.*Put the file back"):
        GeneralistTrainer(config, tiny_dataset())


def test_a_module_can_be_named_too() -> None:
    attack = replace(custom_attack("pgd"), function="tests.helpers.custom_functions:pgd")
    net = LinearNet((2, 4, 4))
    assert torch.equal(perturb(attack, net, X, Y, noise()), perturb(LIKE_PGD, net, X, Y, noise()))


def test_a_custom_loss_smooths_its_labels_itself() -> None:
    with pytest.raises(InvalidConfigError, match="`label_smoothing` must be 0 with a custom loss"):
        ExpertConfig(name="a", loss=custom_loss("cross_entropy"), label_smoothing=0.1)


def test_paths_lead_into_custom_functions() -> None:
    config = replace_at(
        two_experts(),
        "experts.robust.attack",
        {"type": "CustomAttack", "function": "a.py:f", "epsilon": 0.1, "forward_images": 3},
    )
    assert replace_at(config, "experts.robust.attack.epsilon", 0.2).experts[1].attack == (
        CustomAttack(function="a.py:f", epsilon=0.2, forward_images=3)
    )
