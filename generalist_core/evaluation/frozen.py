"""The model under evaluation: a frozen float32 copy."""

from __future__ import annotations

import torch
from torch import nn

from generalist_core.models.state import copied, moved


def frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """A float32 copy on `device`, in eval mode, whose parameters have and take no gradients.

    A backward pass through it, such as FAB's, cannot change the original.
    """
    alone = moved(copied(model), device, torch.float32).eval()
    alone.zero_grad(set_to_none=True)
    return alone.requires_grad_(False)
