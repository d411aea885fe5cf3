"""The model under evaluation: a frozen float32 copy, which counts what attacks ask of it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


def frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """A float32 copy on `device`, in eval mode, whose parameters take no gradient and hold none.

    A backward pass through it (FAB's) can leave nothing behind in the original.
    """
    copied = copy.deepcopy(model).to(device=device, dtype=torch.float32).eval()
    copied.zero_grad(set_to_none=True)
    return copied.requires_grad_(False)


def digest(model: nn.Module) -> str:
    """A hash of every parameter and buffer, by name and by bit."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict(keep_vars=True).items():
        hashed.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(as_bytes(value))
    return hashed.hexdigest()


def as_bytes(value: Tensor) -> bytes:
    """The bytes of a tensor of any type."""
    flat = value.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


class Counted:
    """A forward that counts the images it sees, and the gradients that come back."""

    def __init__(self, logits_of: Callable[[Tensor], Tensor]) -> None:
        self.logits_of = logits_of
        self.forward_images = self.gradient_images = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of `x`; a gradient that later flows back through them counts once."""
        self.forward_images += len(x)
        logits = self.logits_of(x)
        if logits.requires_grad:
            logits.register_hook(self._count_gradient)  # type: ignore[no-untyped-call]
        return logits

    def _count_gradient(self, gradient: Tensor) -> None:
        self.gradient_images += len(gradient)


class CountingModel(nn.Module):
    """A model whose forward is counted.

    An attack's claim about its steps is thus checked against what it really asked for.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.counted = Counted(model)
        self.train(model.training)

    @property
    def forward_images(self) -> int:
        """The images it has seen."""
        return self.counted.forward_images

    @property
    def gradient_images(self) -> int:
        """The gradients that came back."""
        return self.counted.gradient_images

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`."""
        return self.counted(x)
