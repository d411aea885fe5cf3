"""Custom losses and attacks, right and wrong; tests name them by this file."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.attacks.gradient import Logits, input_gradient
from generalist_core.randomness import Noise
from generalist_core.training.losses import divergence


def pgd(logits_of: Logits, x: Tensor, y: Tensor, *, epsilon: float, noise: Noise) -> Tensor:
    """Three steps of PGD in Linf, as `PGD(steps=3)` takes them."""
    delta = ((2 * noise.uniform(x) - 1) * epsilon).clamp(-epsilon, epsilon)
    delta = (x + delta).clamp(0, 1) - x
    for _ in range(3):
        gradient = input_gradient(
            logits_of, x + delta, lambda logits: F.cross_entropy(logits, y, reduction="sum")
        )
        delta = (delta + 0.25 * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
        delta = (x + delta).clamp(0, 1) - x
    return (x + delta).clamp(0, 1)


def cross_entropy(logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(x_adv), y)


def trades(logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    clean, adversarial = logits_of(x), logits_of(x_adv)
    return F.cross_entropy(clean, y) + 6.0 * divergence(clean, adversarial).mean()


def leaves_the_ball(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    return 1 - x


def to_the_edge(x: Tensor, length: float) -> Tensor:
    """The images with their first pixel moved inwards: by `length` in every norm."""
    moved = x.clone()
    moved[:, 0, 0, 0] += length * (1 - 2 * (x[:, 0, 0, 0] > 0.5).to(x.dtype))
    return moved


def just_inside(logits_of: Logits, x: Tensor, y: Tensor, *, epsilon: float, **_: Any) -> Tensor:
    return to_the_edge(x, epsilon)


def just_outside(logits_of: Logits, x: Tensor, y: Tensor, *, epsilon: float, **_: Any) -> Tensor:
    return to_the_edge(x, 1.001 * epsilon)


def leaves_the_box(logits_of: Logits, x: Tensor, y: Tensor, *, epsilon: float, **_: Any) -> Tensor:
    return x + epsilon


def is_no_number(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    return x * torch.nan


def crops(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    return x[..., 1:]


def rounds(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    return x.half()


def draws_from_torch(
    logits_of: Logits, x: Tensor, y: Tensor, *, epsilon: float, **_: Any
) -> Tensor:
    return (x + epsilon * torch.rand_like(x)).clamp(0, 1)


def costs_more(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    for _step in range(4):
        input_gradient(logits_of, x, lambda logits: logits.sum())
    return x


def spares_broken(logits_of: Logits, x: Tensor, y: Tensor, **_: Any) -> Tensor:
    with torch.no_grad():
        is_right = bool((logits_of(x).argmax(1) == y).any())
    return costs_more(logits_of, x, y) if is_right else x


def one_loss_per_image(logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(x_adv), y, reduction="none")


def detached(logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(x_adv), y).detach()


def two_forwards(logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(x) + logits_of(x_adv), y)
