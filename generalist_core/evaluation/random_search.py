"""A short search without gradients, for the probe of an evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist_core.attacks.balls import BALLS, normalised
from generalist_core.attacks.gradient import Logits, margin
from generalist_core.config import Norm

_ORDERS: dict[Norm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}

N_STEPS = 60
"""Enough to show that gradients mislead; an attack takes thousands."""


@torch.no_grad()
def random_search(
    logits_of: Logits,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    rng: torch.Generator,
) -> Tensor:
    """Verdicts, (n,), True where an image stays correct, after a random search from `start`.

    Each of `N_STEPS` steps moves a square window of shrinking size by random signs, and is kept for
    the images whose margin does not fall: Square (Andriushchenko et al. 2020) in its simplest form.
    Images stay in the ball around `x` and in [0, 1].
    """
    ball, delta = BALLS[norm], start - x
    best = margin(logits_of(start), y)
    for step in range(N_STEPS):
        window = _window(x, 0.8 * (1 - step / N_STEPS), rng)
        signs = torch.randn(
            (*x.shape[:2], 1, 1), generator=rng, device=x.device, dtype=x.dtype
        ).sign()
        proposed = ball.project(
            delta + 2 * epsilon * normalised(signs * window, _ORDERS[norm]), x, epsilon
        )
        reached = margin(logits_of((x + proposed).clamp(0, 1)), y)
        rises = reached >= best
        best = torch.where(rises, reached, best)
        delta = torch.where(rises.view(-1, 1, 1, 1), proposed, delta)
    return best < 0


def _window(x: Tensor, area: float, rng: torch.Generator) -> Tensor:
    """A mask, (1, 1, h, w), of a random square that covers the fraction `area` of the image."""
    h, w = x.shape[2:]
    side = max(1, round(min(h, w) * area**0.5))
    top, left = (
        int(torch.randint(size - side + 1, (), generator=rng, device=x.device)) for size in (h, w)
    )
    mask = torch.zeros(1, 1, h, w, device=x.device, dtype=x.dtype)
    mask[..., top : top + side, left : left + side] = 1
    return mask
