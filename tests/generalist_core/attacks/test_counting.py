"""Forwards and gradients are counted by image, and only where there are any."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generalist_core.attacks.counting import Counted, CountingModel
from generalist_core.attacks.gradient import input_gradient
from tests.helpers.problems import LinearNet, random_images

X = random_images(5, 2, 4, 4)


def test_forwards_count_images_and_gradients_those_that_flow_back() -> None:
    counted = Counted(LinearNet((2, 4, 4)))
    with torch.no_grad():
        counted(X)
    assert (counted.forward_images, counted.gradient_images) == (5, 0)
    input_gradient(counted, X[:3], lambda logits: logits.sum())
    assert (counted.forward_images, counted.gradient_images) == (8, 3)
    counted(X.clone().requires_grad_())
    assert (counted.forward_images, counted.gradient_images) == (13, 3)


@pytest.mark.parametrize("training", [False, True])
def test_a_counting_model_is_the_model(training: bool) -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)).double()
    counting = CountingModel(model.train(training))
    assert counting.training == training
    assert torch.equal(counting(X), model(X))
    assert (counting.forward_images, counting.gradient_images) == (5, 0)
    assert torch.equal(
        input_gradient(counting, X, lambda logits: logits.square().sum()),
        input_gradient(model, X, lambda logits: logits.square().sum()),
    )
    assert (counting.forward_images, counting.gradient_images) == (10, 5)
