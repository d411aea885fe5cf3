"""Models, verdicts and evaluations that break a law end in its error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from generalist_core.attacks.gradient import fgsm, pgd
from generalist_core.config import FGSM, PGD
from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.laws import (
    require_claim,
    require_natural_at_zero,
    require_sound_model,
    untouched,
)
from generalist_core.randomness import GeneratorNoise, generator
from generalist_core.validation import EvaluationError
from tests.helpers.planted import (
    Detached,
    Flattened,
    NotANumber,
    Softmax,
    bits,
    digits,
    natural_net,
)

CPU = torch.device("cpu")


def noise() -> GeneratorNoise:
    return GeneratorNoise(generator(CPU, 0, "test"))


def in_train_mode() -> nn.Module:
    net = frozen(natural_net(), CPU)
    next(iter(net.children())).train()
    return net


@pytest.mark.parametrize(
    ("build", "law"),
    [
        (in_train_mode, "The model must be in eval mode, but got train mode of 0"),
        (Softmax, "must give logits, but got probabilities"),
        (NotANumber, "Logits must be numbers, but got NaN for 32 of 32 images"),
        (Flattened, r"logits of shape \(n, classes\).*, but got \(32,\) for 32 images"),
        (Detached, "must be differentiable.*, but got no gradient"),
        (lambda: natural_net(3), "must have a logit for each label, but got 3 of 10"),
    ],
)
def test_unsound_models_are_refused(build: Any, law: str) -> None:
    split = digits(32)
    with pytest.raises(EvaluationError, match=law):
        require_sound_model(build(), split.images, split.labels)


def test_a_sound_model_tells_its_classes() -> None:
    split = digits(32)
    with untouched(natural_net()):
        assert require_sound_model(natural_net(), split.images, split.labels) == 10


def test_a_claim_that_recomputation_does_not_confirm_is_caught() -> None:
    require_claim("square", bits("1100"), bits("1110"))
    with pytest.raises(EvaluationError, match=r"its claim of 0.5000.*got 1.0000 \(2 of 4"):
        require_claim("square", bits("1100"), bits("1111"))


def test_an_attack_of_radius_zero_that_changes_verdicts_is_caught() -> None:
    require_natural_at_zero(bits("1101"), bits("1101"))
    with pytest.raises(EvaluationError, match=r"equal the natural 0\.7500 .*, but got 0\.5"):
        require_natural_at_zero(bits("1101"), bits("1100"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda net: net[0].weight.data.mul_(2), "weights"),
        (lambda net: net[1].running_mean.add_(1), "weights"),
        (lambda net: net.train(), "train/eval mode"),
        (lambda net: net(digits(2).images).sum().backward(), "gradients"),
        (lambda net: torch.rand(1), "random state"),
    ],
)
def test_changes_to_model_or_random_state_are_caught(change: Any, what: str) -> None:
    net = frozen(natural_net(), CPU).requires_grad_(True)
    with torch.random.fork_rng([]), pytest.raises(EvaluationError, match=f"got new {what}"):  # noqa: SIM117
        with untouched(net):
            change(net)


def test_attacks_change_nothing() -> None:
    split, net = digits(8), natural_net()
    with untouched(net):
        fgsm(FGSM(epsilon=0.1), net, split.images, split.labels)
        pgd(PGD(epsilon=0.1), net, split.images, split.labels, noise())
