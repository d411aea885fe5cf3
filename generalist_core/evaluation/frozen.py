"""The model under evaluation: a frozen float32 copy."""

from __future__ import annotations

import copy

import torch
from torch import nn

from generalist_core.models.state import moved


def frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """A float32 copy on `device`, in eval mode, whose parameters have and take no gradients.

    A backward pass through it, such as FAB's, cannot change the original.
    """
    copied = moved(copy.deepcopy(model), device, torch.float32).eval()
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_(False)
