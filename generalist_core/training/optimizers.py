"""Optimizers built from their configuration."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from generalist_core.config import SGD, Adam, AdamW, Optimizer, RMSprop


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimizer, in the variant that updates all tensors at once."""
    tensors, lr, decay = list(parameters), config.lr, config.weight_decay
    # torch fuses updates of real numbers only; in its other variants complex ones are pairs of them
    fused = not any(tensor.is_complex() for tensor in tensors)
    match config:
        case SGD(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(
                tensors, lr, momentum, weight_decay=decay, nesterov=nesterov, fused=fused
            )
        case AdamW(beta1=beta1, beta2=beta2):
            return torch.optim.AdamW(tensors, lr, (beta1, beta2), weight_decay=decay, fused=fused)
        case Adam(beta1=beta1, beta2=beta2):
            return torch.optim.Adam(tensors, lr, (beta1, beta2), weight_decay=decay, fused=fused)
        case RMSprop(alpha=alpha, momentum=momentum):
            return torch.optim.RMSprop(
                tensors, lr, alpha, weight_decay=decay, momentum=momentum, foreach=True
            )
