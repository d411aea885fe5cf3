"""Models that count the images they see and the gradients that flow back through them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Counted:
    """A forward that counts the images it sees and the gradients that flow back."""

    def __init__(self, logits_of: Callable[[Tensor], Tensor]) -> None:
        self.logits_of = logits_of
        self.forward_images = self.gradient_images = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of `x`; gradients that later flow back through them are counted."""
        self.forward_images += len(x)
        logits = self.logits_of(x)
        if logits.requires_grad:
            logits.register_hook(self._count_gradient)  # type: ignore[no-untyped-call]
        return logits

    def _count_gradient(self, gradient: Tensor) -> None:
        self.gradient_images += len(gradient)


class CountingModel(nn.Module):
    """A model whose forwards and gradients are counted.

    An attack's claim about its steps can thus be checked against what it really computed.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.counted = Counted(model)
        self.train(model.training)

    @property
    def forward_images(self) -> int:
        """The number of images that the model has seen."""
        return self.counted.forward_images

    @property
    def gradient_images(self) -> int:
        """The number of images whose gradient flowed back."""
        return self.counted.gradient_images

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`."""
        return self.counted(x)
