"""The laws of an attack, checked on what it really asked for and returned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generalist_core.attacks.balls import norms
from generalist_core.attacks.counting import CountingModel
from generalist_core.config import Norm
from generalist_core.validation import EvaluationError

_ORDERS: dict[Norm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}


def require_law(holds: bool, law: str, got: str, cure: str) -> None:
    """Raise EvaluationError unless `holds`."""
    if not holds:
        raise EvaluationError(f"`{law}` must hold, but got {got}. {cure}")


# The attack


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
    """The adversarial images of an attack, once it has kept the laws of an attack.

    `craft` gets the model, whose counters tell how many gradients it takes; `claimed` is the
    fewest and the most it may take for all of `x` together, without upper limit if None.

    Raises:
        EvaluationError: another number of gradients, or images outside ball or box.
    """
    before = model.gradient_images
    images = craft(model)
    require_gradients(name, claimed, model.gradient_images - before)
    require_in_ball(name, images, x, norm=norm, epsilon=epsilon)
    return images


def require_gradients(name: str, claimed: tuple[int, int | None], counted: int) -> None:
    """Check the number of input gradients an attack took against the fewest and most it claims."""
    fewest, most = claimed
    right = fewest <= counted and (most is None or counted <= most)
    law = f"{name} takes {'at least ' if most is None else ''}{fewest} input gradients"
    cure = "It runs other steps than it claims; its accuracy is not that of its name."
    require_law(right, law, f"{counted}", cure)


def require_in_ball(name: str, images: Tensor, x: Tensor, *, norm: Norm, epsilon: float) -> None:
    """Check that images lie in the ball around `x` and in [0, 1], up to float32 rounding."""
    cure = "The attack must project onto the ball and clip to [0, 1]."
    require_law(images.shape == x.shape, f"{name} keeps the shape", f"{tuple(images.shape)}", cure)
    require_law(not bool(images.isnan().any()), f"{name} yields numbers", "NaN pixels", cure)
    low, high = float(images.min()), float(images.max())
    in_box = low >= -1e-6 and high <= 1 + 1e-6
    require_law(in_box, f"{name} stays in [0, 1]", f"values in [{low:g}, {high:g}]", cure)
    largest = float(norms(images - x, _ORDERS[norm]).max())
    law = f"{name} stays in the {norm} ball of radius {epsilon:g}"
    require_law(largest <= epsilon * (1 + 1e-5) + 1e-6, law, f"a norm of {largest:g}", cure)
