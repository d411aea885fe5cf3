"""The laws of an attack: what it claims and returns is checked, in every norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from generalist_core.attacks.counting import CountingModel
from generalist_core.attacks.gradient import pgd
from generalist_core.attacks.laws import audited, require_gradients, require_in_ball
from generalist_core.config import PGD, Norm
from generalist_core.evaluation.frozen import frozen
from generalist_core.validation import EvaluationError
from tests.helpers.planted import digits, natural_net
from tests.helpers.problems import noise

CPU = torch.device("cpu")


def audit(craft: Any, *, epsilon: float = 0.1, claimed: int = 0, norm: Norm = "linf") -> Tensor:
    x = digits(8).images
    model = CountingModel(frozen(natural_net(), CPU))
    most = claimed * len(x)
    return audited("planted", craft, model, x, norm=norm, epsilon=epsilon, claimed=(most, most))


def test_an_attack_that_claims_more_steps_than_it_runs_is_caught() -> None:
    split = digits(8)
    attack = PGD(epsilon=0.1, steps=10)

    def craft(model: CountingModel) -> Tensor:
        return pgd(attack, model, split.images, split.labels, noise())

    audit(craft, claimed=10)
    with pytest.raises(EvaluationError, match="planted must take 160 input gradients, but got 80"):
        audit(craft, claimed=20)


def test_a_lower_bound_on_gradients() -> None:
    require_gradients("apgd-ce", (10, None), 12)
    with pytest.raises(EvaluationError, match="at least 10 input gradients"):
        require_gradients("apgd-ce", (10, None), 9)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda x: (x + 0.2).clamp(0, 1), "must stay in the linf ball of radius 0.1"),
        (lambda x: x - 0.05, r"must stay in \[0, 1\]"),
        (lambda x: x * torch.nan, "must return numbers"),
        (lambda x: x[:4], "must keep the shape"),
    ],
)
def test_images_outside_ball_or_box_are_caught(change: Any, law: str) -> None:
    x = digits(8).images
    with pytest.raises(EvaluationError, match=f"planted {law}"):
        audit(lambda model: change(x))


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.1), ("l2", 0.8), ("l1", 6.4)])
def test_each_norm_has_its_ball(norm: Norm, length: float) -> None:
    x = torch.full((3, 1, 8, 8), 0.5)
    require_in_ball("planted", x + 0.1, x, norm=norm, epsilon=length)
    with pytest.raises(EvaluationError, match=f"the {norm} ball"):
        require_in_ball("planted", x + 0.1, x, norm=norm, epsilon=0.999 * length)
