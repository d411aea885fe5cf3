"""A random search stays in its ball, and finds what gradients do not see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generalist_core.attacks.laws import require_in_ball
from generalist_core.config import Norm
from generalist_core.evaluation.random_search import N_STEPS, random_search
from generalist_core.randomness import generator
from tests.helpers.planted import HiddenFromGradients, Linear, digits, interior_images

CPU = torch.device("cpu")


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.5), ("l1", 2.0)])
def test_all_images_that_it_asks_about_lie_in_ball_and_box(norm: Norm, epsilon: float) -> None:
    split, model, asked = digits(8), HiddenFromGradients(), []

    def recorded(x: Tensor) -> Tensor:
        asked.append(x)
        return model(x)

    rng = generator(CPU, 0, "test")
    random_search(
        recorded, split.images, split.labels, split.images, norm=norm, epsilon=epsilon, rng=rng
    )
    assert len(asked) == 1 + N_STEPS
    for images in asked:
        require_in_ball("search", images, split.images, norm=norm, epsilon=epsilon)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", torch.inf)])
def test_on_a_linear_model_only_images_within_reach_break(norm: Norm, dual: float) -> None:
    model, x = Linear(4), interior_images()
    y = model(x).argmax(1)
    radii = model.radii(x, y, dual)
    epsilon = float(radii.median())
    rng = generator(CPU, 0, "test")
    correct = random_search(model, x, y, x, norm=norm, epsilon=epsilon, rng=rng)
    assert correct[radii > 1.001 * epsilon].all()
    assert not correct.all()


def test_it_breaks_images_that_gradients_do_not() -> None:
    split, model = digits(64), HiddenFromGradients()
    rng = generator(CPU, 0, "test")
    natural = model(split.images).argmax(1) == split.labels
    correct = random_search(
        model, split.images, split.labels, split.images, norm="linf", epsilon=0.1, rng=rng
    )
    assert (natural & ~correct).sum() > 5
