"""Verdicts on one batch: restarts, costs, and noise that does not depend on the batch."""

from __future__ import annotations

import pytest
import torch

from generalist_core.attacks.counting import CountingModel
from generalist_core.attacks.gradient import perturb
from generalist_core.config.suite import SuiteConfig, standard_pgd
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.judge import ImageNoise, Judge
from tests.helpers.planted import SHAPE, Unbreakable, digits, natural_net

CPU = torch.device("cpu")


def judge(model: torch.nn.Module, epsilon: float = 0.05, n_classes: int = 10) -> Judge:
    config = SuiteConfig(norm="linf", epsilon=epsilon, n_iterations=3, n_queries=10)
    counting = CountingModel(frozen(model, CPU))
    return Judge(model=counting, config=config, n_classes=n_classes, is_stable=True)


def test_noise_depends_on_the_image_and_not_on_its_batch() -> None:
    like = torch.zeros(4, *SHAPE)
    index = torch.tensor([7, 3, 5, 0])
    whole, part = ImageNoise(1, ("pgd-3", 0), index), ImageNoise(1, ("pgd-3", 0), index[2:])
    for draw in ("uniform", "normal"):
        drawn = getattr(whole, draw)(like)
        assert torch.equal(drawn[2:], getattr(part, draw)(like[2:]))
        assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(
        ImageNoise(1, ("pgd-3", 0), index).uniform(like),
        ImageNoise(1, ("pgd-3", 1), index).uniform(like),
    )


def test_natural_verdicts_are_those_of_the_model() -> None:
    split = digits(40)
    correct, warnings = judge(natural_net()).verdicts(
        "natural", split.images, split.labels, torch.arange(40)
    )
    assert torch.equal(correct, natural_net()(split.images).argmax(1) == split.labels)
    assert warnings == ()


def test_restarts_keep_what_any_of_them_has_broken() -> None:
    split, index, config = digits(100), torch.arange(100), SuiteConfig(norm="linf", epsilon=0.06)
    correct, _ = judge(natural_net(), 0.06).verdicts("pgd-1x3", split.images, split.labels, index)
    alone = []
    for restart in range(3):
        noise = ImageNoise(config.seed, ("pgd-1x3", restart), index)
        attack = standard_pgd("linf", 0.06, 1)
        images = perturb(attack, natural_net(), split.images, split.labels, noise)
        alone.append(natural_net()(images).argmax(1) == split.labels)
    assert torch.equal(correct, torch.stack(alone).all(0))
    assert all(correct.sum() < verdicts.sum() for verdicts in alone)


@pytest.mark.parametrize(
    "name", ["natural", "fgsm", "pgd-3", "pgd-3x2", "mim-4", "apgd-ce", "square"]
)
def test_an_image_that_is_never_broken_costs_the_full_cost(name: str) -> None:
    x, y = torch.full((4, *SHAPE), 0.5), torch.arange(4)
    x[:, 0, 0, 0] = y / 4
    judged = judge(Unbreakable(4), epsilon=0.01, n_classes=4)
    correct, _ = judged.verdicts(name, x, y, torch.arange(4))
    assert correct.all()
    forwards, gradients = judged.full_cost(name)
    assert (judged.model.forward_images, judged.model.gradient_images) == (
        4 * forwards,
        4 * gradients,
    )
