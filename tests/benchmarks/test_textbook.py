"""The textbook's PGD against this package's."""

from __future__ import annotations

import pytest
import torch

from benchmarks.textbook import textbook_pgd
from generalist_core.attacks.gradient import perturb
from generalist_core.config import PGD
from tests.helpers.problems import LinearNet, linear_optimum, noise, random_images

SHAPE = (1, 4, 4)


@pytest.mark.parametrize("steps", [1, 5])
def test_it_crafts_the_images_of_this_packages_attack(steps: int) -> None:
    attack = PGD(epsilon=0.1, steps=steps, relative_step_size=0.25)
    model, x, y = LinearNet(SHAPE), random_images(6, *SHAPE), torch.arange(6) % 2
    textbook = textbook_pgd(attack, model, x, y, torch.Generator().manual_seed(0))
    torch.testing.assert_close(textbook, perturb(attack, model, x, y, noise(0)))


def test_it_reaches_the_optimum_of_a_linear_model() -> None:
    attack = PGD(epsilon=0.1, steps=10, relative_step_size=0.25)
    model, x, y = LinearNet(SHAPE), random_images(6, *SHAPE), torch.arange(6) % 2
    found = textbook_pgd(attack, model, x, y, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, linear_optimum("linf", model, x, y, 0.1))
