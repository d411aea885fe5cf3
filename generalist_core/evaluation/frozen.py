"""The model under evaluation: a frozen float32 copy, which counts what attacks ask of it."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """A float32 copy on `device`, in eval mode, whose parameters take no gradient and hold none.

    A backward pass through it (FAB's) can leave nothing behind in the original.
    """
    copied = copy.deepcopy(model).to(device=device, dtype=torch.float32).eval()
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_(False)
