"""Optimizers: built from their configuration, and kept in their places."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

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


def fixed_settings(config: Optimizer) -> Optimizer:
    """The configuration without what changes from step to step, or from run to run."""
    return replace(config, lr=1.0, weight_decay=0.0)


@torch.no_grad()
def decay_weights(optimizer: torch.optim.Optimizer, lr: Tensor, weight_decay: Tensor) -> None:
    """Do, before a step without weight decay, what a weight decay does to it.

    Torch takes no tensor as weight decay. AdamW takes it off the weights, others add it to the
    gradients.
    """
    for group in optimizer.param_groups:
        trained = [tensor for tensor in group["params"] if tensor.grad is not None]
        is_decoupled = isinstance(optimizer, torch.optim.AdamW)
        decays = torch._foreach_mul(trained, lr * weight_decay if is_decoupled else weight_decay)
        if is_decoupled:
            torch._foreach_sub_(trained, decays)
        else:
            torch._foreach_add_([tensor.grad for tensor in trained], decays)


@torch.no_grad()
def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state into the tensors that the optimizer has, where it has them."""
    before = {tensor: dict(kept) for tensor, kept in optimizer.state.items()}
    optimizer.load_state_dict(copy.deepcopy(dict(state)))
    for tensor, loaded in optimizer.state.items():
        for name, place in before.get(tensor, {}).items():
            if name in loaded:
                loaded[name] = place.copy_(loaded[name])
