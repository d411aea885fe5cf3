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
            optimizer = torch.optim.SGD(
                tensors, lr, momentum, weight_decay=decay, nesterov=nesterov, fused=fused
            )
            if momentum > 0:
                optimizer.register_step_pre_hook(_begin_late_momentum)
            return optimizer
        case AdamW(beta1=beta1, beta2=beta2):
            return torch.optim.AdamW(tensors, lr, (beta1, beta2), weight_decay=decay, fused=fused)
        case Adam(beta1=beta1, beta2=beta2):
            return torch.optim.Adam(tensors, lr, (beta1, beta2), weight_decay=decay, fused=fused)
        case RMSprop(alpha=alpha, momentum=momentum):
            return torch.optim.RMSprop(
                tensors, lr, alpha, weight_decay=decay, momentum=momentum, foreach=True
            )


@torch.no_grad()
def _begin_late_momentum(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Give a momentum to parameters whose first gradient comes later than that of others.

    Torch's fused step takes one for each parameter with a gradient, or for none.
    """
    if not optimizer.state:
        return
    for tensor in (tensor for group in optimizer.param_groups for tensor in group["params"]):
        if tensor.grad is not None and tensor not in optimizer.state:
            optimizer.state[tensor]["momentum_buffer"] = torch.zeros_like(tensor)


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
