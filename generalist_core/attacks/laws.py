"""The laws of an attack, checked against what it really computed and returned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generalist_core.attacks.balls import norms
from generalist_core.attacks.counting import CountingModel
from generalist_core.config import Norm
from generalist_core.validation import EvaluationError

_ORDERS: dict[Norm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}


def audited(
    name: str,
    craft: Callable[[CountingModel], Tensor],
    model: CountingModel,
    x: Tensor,
    *,
    norm: Norm,
    epsilon: float,
    claimed: tuple[int, int | None],
) -> Tensor:
    """The adversarial images that `craft` makes, checked against the laws of an attack.

    `craft` gets the model, which counts the gradients that the attack takes. `claimed` has the
    fewest and the most gradients that it may take for all of `x` together (None: no upper limit).

    Raises:
        EvaluationError: the number of gradients is not as claimed, or images leave ball or box.
    """
    before = model.gradient_images
    images = craft(model)
    require_gradients(name, claimed, model.gradient_images - before)
    require_in_ball(name, images, x, norm=norm, epsilon=epsilon)
    return images


def require_gradients(name: str, claimed: tuple[int, int | None], counted: int) -> None:
    """Check the number of input gradients that an attack took against the bounds it claims."""
    fewest, most = claimed
    if counted < fewest or (most is not None and counted > most):
        raise EvaluationError(
            f"The attack {name} must take {'at least ' if most is None else ''}{fewest} input "
            f"gradients, but got {counted}. It runs other steps than it claims, or the model now "
            "and then answers differently, so that images were spared; the accuracy is not that of "
            "its name."
        )


def require_numbers(logits: Tensor) -> None:
    """Check that no logit is NaN."""
    n_bad = int(logits.isnan().any(1).sum())
    if n_bad > 0:
        raise EvaluationError(
            f"Logits must be numbers, but got NaN for {n_bad} of {len(logits)} images. Training "
            "may have diverged, or a gradient is infinite, as that of a square root at 0 is."
        )


def require_in_ball(name: str, images: Tensor, x: Tensor, *, norm: Norm, epsilon: float) -> None:
    """Check that images lie in the ball around `x` and in [0, 1], up to float32 rounding."""
    if images.shape != x.shape:
        raise EvaluationError(
            f"The attack {name} must keep the shape {tuple(x.shape)} of the images, but got "
            f"{tuple(images.shape)}."
        )
    if images.isnan().any():
        raise EvaluationError(f"The attack {name} must return numbers, but got NaN pixels.")
    low, high = float(images.min()), float(images.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise EvaluationError(
            f"The attack {name} must stay in [0, 1], but got values in [{low:g}, {high:g}]. "
            "Clip the images to [0, 1]."
        )
    largest = float(norms(images - x, _ORDERS[norm]).max())
    if largest > epsilon * (1 + 1e-5) + 1e-6:
        raise EvaluationError(
            f"The attack {name} must stay in the {norm} ball of radius {epsilon:g}, but got a norm "
            f"of {largest:g}. Project the perturbation onto the ball."
        )
