"""PGD as published implementations write it: with `backward()`, so also with weight gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.config import PGD


def textbook_pgd(
    attack: PGD, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator
) -> Tensor:
    """Adversarial images in Linf from a uniform start, with the model in its present mode."""
    uniform = torch.rand(x.shape, generator=rng, dtype=x.dtype, device=x.device)
    attacked = (x + (2 * uniform - 1) * attack.epsilon).clamp(0, 1)
    for _ in range(attack.steps):
        attacked = attacked.detach().requires_grad_()
        F.cross_entropy(model(attacked), y, reduction="sum").backward()
        assert attacked.grad is not None
        step = attack.relative_step_size * attack.epsilon * attacked.grad.sign()
        delta = (attacked.detach() + step - x).clamp(-attack.epsilon, attack.epsilon)
        attacked = (x + delta).clamp(0, 1)
    return attacked.detach()
