"""Buffers that follow from the weights are recomputed, and others are not taken for such."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from generalist_core.models.derived_check import require_sound_derived
from generalist_core.models.state import averaged_tensors, load_state
from generalist_core.training.averaging import load_weights, mix, named, weights_of
from generalist_core.validation import InvalidConfigError

IMAGES = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class HandSpectral(nn.Module):
    """A linear layer divided by its largest singular value, by power iteration in train mode."""

    u: Tensor
    v: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 16))
        self.register_buffer("u", F.normalize(torch.randn(4), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(16), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.v.copy_(F.normalize(self.weight.T @ self.u, dim=0))
                self.u.copy_(F.normalize(self.weight @ self.v, dim=0))
        return x.flatten(1) @ (self.weight / (self.u @ self.weight @ self.v)).T


class Declaring(HandSpectral):
    derived_buffers = ("u", "v")

    def recompute_derived_buffers(self) -> None:
        left, _, right = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.u.copy_(left[:, 0])
        self.v.copy_(right[0])


class Iterating(HandSpectral):
    derived_buffers = ("u", "v")

    def recompute_derived_buffers(self) -> None:
        self.u.copy_(self.weight.detach() @ self.weight.detach().T @ self.u)


class Cached(nn.Module):
    """A buffer that `kept` makes of itself, the weight and the images in train mode."""

    kept: Tensor

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.step = nn.Parameter(torch.randn(2, 16)), step
        self.register_buffer("kept", torch.zeros(2, 16))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.kept = self.step(self.kept, self.weight.detach(), x.flatten(1))
        return x.flatten(1) @ (self.weight + self.kept).T


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "power iteration": (HandSpectral, "but u, v would be"),
    "inside a model": (lambda: nn.Sequential(HandSpectral(), nn.Linear(4, 2)), r"0\.u, 0\.v would"),
    "signs": (lambda: Cached(lambda _, w, x: w.sign() * w.abs().mean()), "kept would be"),
    "recomputed from former values": (Iterating, "but u depends on its former values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_averaged_in_error_is_named(name: str) -> None:
    build, says = REFUSED[name]
    with pytest.raises(InvalidConfigError, match=says):
        require_sound_derived(build(), IMAGES)


ACCEPTED: dict[str, Callable[[], nn.Module]] = {
    "declared": Declaring,
    "torch's": lambda: nn.Sequential(
        nn.Flatten(), parametrizations.spectral_norm(nn.Linear(16, 2))
    ),
    "statistics": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
    "statistics of the last batch": lambda: nn.BatchNorm2d(1, momentum=1.0),
    "average of the weights": lambda: Cached(lambda kept, w, x: 0.9 * kept + 0.1 * w),
    "average of images": lambda: Cached(lambda kept, w, x: 0.9 * kept + 0.1 * x.mean(0)),
    "constant": lambda: Cached(lambda kept, w, x: kept),
    "set to a constant": lambda: Cached(lambda kept, w, x: torch.ones_like(kept)),
    "of images and weights": lambda: Cached(lambda kept, w, x: w * x.mean(0)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_other_buffers_pass(name: str) -> None:
    require_sound_derived(ACCEPTED[name](), IMAGES)


def test_a_mixture_recomputes_what_its_modules_declare() -> None:
    models = [Declaring().train() for _ in range(2)]
    for model in models:
        model(IMAGES[0])
    mixture = Declaring().eval()
    assert list(averaged_tensors(mixture)) == ["weight"]
    load_weights(mixture, named(mixture, mix([weights_of(m) for m in models], [0.5, 0.5])))
    weight = cast(Tensor, models[0].weight + models[1].weight).detach() / 2
    expected = IMAGES[0].flatten(1) @ (weight / torch.linalg.matrix_norm(weight, 2)).T
    torch.testing.assert_close(mixture(IMAGES[0]).detach(), expected)
    again = Declaring().eval()
    load_state(again, {"weight": weight})
    torch.testing.assert_close(again(IMAGES[0]), mixture(IMAGES[0]))
