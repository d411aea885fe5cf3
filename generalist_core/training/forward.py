"""Forward passes as functions of images alone: in mixed precision, or compiled."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from generalist_core.attacks.gradient import Logits


def forward_of(model: nn.Module, *, autocasts: bool) -> Logits:
    """Logits in the precision of the images; with `autocasts` the model computes in bfloat16."""

    def logits_of(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocasts):
            logits: Tensor = model(x)
        return logits.to(x.dtype)

    return logits_of


def compiled(logits_of: Logits, *, replays: bool = False) -> Logits:
    """`logits_of` compiled, once for each shape of images; the model's names stay as they are.

    With `replays` a GPU records the kernels and replays them. This needs a forward whose gradient
    is used before the next one, as in an attack, because the memory of both is reused. Weights must
    change in place. Torch compiles at most eight different forwards per process (experts of one
    architecture share one); it then logs a warning and leaves further ones as they are.
    """
    mode = "reduce-overhead" if replays else None
    return torch.compile(logits_of, dynamic=False, mode=mode)


def frozen_twin(model: nn.Module) -> nn.Module:
    """A copy of the modules, in eval mode, that shares the model's weights without gradients.

    A compiled forward computes the gradients of all weights that require one, wanted or not. The
    twin follows the model as long as the model's parameters and buffers change in place.
    """
    shared: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(model, shared).eval()
