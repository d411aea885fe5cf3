"""Classifiers by name, built-in and custom. All take images (n, c, h, w) in [0, 1]."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from generalist_core.config import ModelConfig
from generalist_core.models.convnet import convnet
from generalist_core.models.preact_resnet import preactresnet18
from generalist_core.models.resnet import resnet18
from generalist_core.models.wide_resnet import wide_resnet
from generalist_core.randomness import derive_seed, global_seed
from generalist_core.user_code import load_callable, require_unchanged
from generalist_core.validation import InvalidConfigError, did_you_mean

Shape = tuple[int, int, int]
ModelFactory = Callable[[int, Shape], nn.Module]

MODELS: dict[str, tuple[Callable[[int, Shape, int], nn.Module], int]] = {
    "convnet": (convnet, 16),
    "resnet18": (resnet18, 64),
    "preactresnet18": (preactresnet18, 64),
    "wrn-28-10": (lambda n, shape, width: wide_resnet(n, shape, n_blocks=4, width=width), 10),
    "wrn-32-10": (lambda n, shape, width: wide_resnet(n, shape, n_blocks=5, width=width), 10),
}
"""Each built-in model with its published width."""


class Normalised(nn.Module):
    """A model that first normalises its inputs, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


def build_model(
    config: ModelConfig, n_classes: int, shape: Shape, *, seed: int | None
) -> nn.Module:
    """The model with its initial weights, which depend only on `seed`, in float32 on the CPU.

    Without a seed they depend on the global random state, as those of a `ModelFactory` do.

    Raises:
        InvalidConfigError: the name is unknown, or a custom model cannot be loaded or has changed,
            or the normalisation does not fit the images.
    """
    with contextlib.ExitStack() as seeded:
        if seed is not None:
            seeded.enter_context(global_seed(derive_seed(seed, "init"), torch.device("cpu")))
        model = _build(config, n_classes, shape)
    if config.mean is None or config.std is None:
        return model
    if len(config.mean) != shape[0]:
        raise InvalidConfigError(
            "`mean` must have one number per channel, but got "
            f"{config.mean} for {shape[0]} channels."
        )
    return Normalised(model, config.mean, config.std)


def _build(config: ModelConfig, n_classes: int, shape: Shape) -> nn.Module:
    name = config.name
    if name in MODELS:
        build, width = MODELS[name]
        return build(n_classes, shape, config.width or width)
    if config.width is not None:
        raise InvalidConfigError(
            "`width` must be None except for built-in models, but got "
            f"width={config.width} for {name}."
        )
    if name.startswith("torchvision:"):
        return _torchvision_model(name.removeprefix("torchvision:"), n_classes)
    if ":" not in name:
        raise InvalidConfigError(
            f"`model` must be one of {', '.join(MODELS)}, torchvision:NAME, FILE.py:FUNCTION or "
            f"MODULE:FUNCTION, but got {name!r}.{did_you_mean(name, MODELS)}"
        )
    if config.digest:
        require_unchanged(name, config.digest)
    return cast(ModelFactory, load_callable(name, what="model"))(n_classes, shape)


def _torchvision_model(name: str, n_classes: int) -> nn.Module:
    """An untrained classifier of torchvision, whose slow import waits until it is needed."""
    from torchvision.models import get_model, list_models

    known = list_models(module=importlib.import_module("torchvision.models"))
    if name not in known:
        raise InvalidConfigError(
            f"`model` must be one of torchvision's {', '.join(known)}, but got {name!r}."
            f"{did_you_mean(name, known)}"
        )
    model: nn.Module = get_model(name, weights=None, num_classes=n_classes)
    return model


def why_no_logits(outputs: Tensor) -> str | None:
    """Why outputs, (n, classes), are no logits; None if they are not rows of probabilities."""
    outputs = outputs.detach()
    in_range = bool(((outputs >= 0) & (outputs <= 1 + 1e-5)).all())
    if not (in_range and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())):
        return None
    return (
        "The model must give logits, but got probabilities: rows in [0, 1] with the sum 1. Remove "
        "the softmax at its end, as losses and attacks apply their own."
    )
