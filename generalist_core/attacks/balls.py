"""The balls that attacks move in: uniform start, steepest step, projection.

Perturbations `delta` have the shape of the images, (n, ...), and radii are floats. Every function
treats each image separately.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from generalist_core.config import Norm
from generalist_core.randomness import Noise


class Ball(Protocol):
    """The geometry of one norm."""

    @staticmethod
    def start(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        """A perturbation drawn uniformly from the ball."""
        ...

    @staticmethod
    def steepest(gradient: Tensor, x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
        """The direction of norm 1 in which a linear loss rises most from x + delta."""
        ...

    @staticmethod
    def project(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """The perturbation projected onto the ball, with x + delta in [0, 1]."""
        ...


class Linf:
    """Every pixel moves by at most epsilon."""

    @staticmethod
    def start(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        return (2 * noise.uniform(x) - 1) * epsilon

    @staticmethod
    def steepest(gradient: Tensor, x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
        return gradient.sign()

    @staticmethod
    def project(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
        return into_box(delta.clamp(-epsilon, epsilon), x)


class L2:
    """The Euclidean ball."""

    @staticmethod
    def start(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        """A uniform direction, and a radius whose d-th power is uniform in d dimensions."""
        direction = normalised(noise.normal(x), 2)
        radius = noise.uniform(per_image(x[:, :1].flatten(1)[:, 0], x)) ** (1 / x[0].numel())
        return epsilon * radius * direction

    @staticmethod
    def steepest(gradient: Tensor, x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
        return normalised(gradient, 2)

    @staticmethod
    def project(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
        longest = norms(delta, 2).clamp(min=epsilon).clamp(min=torch.finfo(x.dtype).tiny)
        return into_box(delta * (epsilon / longest), x)


class L1:
    """All changes add up to at most epsilon; steps are sparse, as the linear optimum is."""

    @staticmethod
    def start(x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        """Signed exponentials, divided by their sum plus one more exponential: uniform in the ball.

        Barthe et al. 2005, "A probabilistic approach to the geometry of the l_p^n-ball".
        """
        tiny = torch.finfo(x.dtype).tiny
        sizes = -noise.uniform(x).clamp(min=tiny).log()
        extra = -noise.uniform(per_image(x.flatten(1)[:, 0], x)).clamp(min=tiny).log()
        signs = 2 * (noise.uniform(x) < 0.5).to(x.dtype) - 1
        return epsilon * signs * sizes / (per_image(sizes.flatten(1).sum(1), x) + extra)

    @staticmethod
    def steepest(gradient: Tensor, x: Tensor, delta: Tensor, epsilon: float) -> Tensor:
        """The gradient on the pixels that the optimum of a linear loss would spend epsilon on.

        Those are the pixels with the largest gradients, as many as their room up to 0 or 1 requires
        (Tramer & Boneh 2019 take a fixed fraction; Croce & Hein 2021 treat ball and box together).
        Pixels that x + delta has moved to 0 or 1 take nothing of the norm. They keep their place in
        the direction, at most 1, so that the projection does not take them back: the optimum of a
        linear loss stays where it is.
        """
        flat, room = gradient.flatten(1), room_along(gradient, x).flatten(1)
        order = flat.abs().argsort(dim=1, descending=True)
        sorted_room = room.gather(1, order)
        spent_before = sorted_room.cumsum(1) - sorted_room
        chosen = torch.zeros_like(flat).scatter(1, order, (spent_before < epsilon).to(flat.dtype))
        direction = (flat * chosen).view_as(x)
        free = direction * (room_along(direction, x + delta) > ROUNDING)
        movable = torch.where(norms(free, 1) > 0, norms(free, 1), norms(direction, 1))
        return (direction / movable.clamp(min=torch.finfo(x.dtype).tiny)).clamp(-1, 1)

    @staticmethod
    def project(delta: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Exact projection onto the intersection of ball and box, by soft thresholding."""
        size, room = delta.abs(), room_along(delta, x)
        low = torch.zeros_like(per_image(size.flatten(1)[:, 0], x))
        high = per_image(size.flatten(1).amax(1), x)
        inside = per_image(size.minimum(room).flatten(1).sum(1), x) <= epsilon
        for _ in range(50 if delta.dtype == torch.float64 else 30):
            middle = (low + high) / 2
            total = per_image((size - middle).clamp(min=0).minimum(room).flatten(1).sum(1), x)
            low = torch.where(total > epsilon, middle, low)
            high = torch.where(total > epsilon, high, middle)
        threshold = torch.where(inside, 0, high)
        return into_box(delta.sign() * (size - threshold).clamp(min=0).minimum(room), x)


ROUNDING = 1e-6
"""Pixels that are this near to 0 or 1 have met it, up to float32 rounding."""

BALLS: dict[Norm, Ball] = {"linf": Linf, "l2": L2, "l1": L1}


def shrinking(steps: int) -> list[float]:
    """The radius of the ball that each step of an attack begins in, over the attack's own.

    They are 3, then 2, and 1 for the last 40 % of the steps, as in APGD in L1 (Croce & Hein 2021,
    section 4.3): sparse steps from the small ball alone miss pixels that matter together.
    """
    left = range(steps, 0, -1)
    return [1.0 if n <= max(1, 0.4 * steps) else 2.0 if n <= 0.7 * steps else 3.0 for n in left]


def norms(delta: Tensor, p: float) -> Tensor:
    """The p-norm of each image's perturbation, shaped (n, 1, ...) to multiply with it."""
    return per_image(torch.linalg.vector_norm(delta.flatten(1), ord=p, dim=1), delta)


def normalised(direction: Tensor, p: float) -> Tensor:
    """Each image's direction scaled to p-norm 1; zero stays zero."""
    return direction / norms(direction, p).clamp(min=torch.finfo(direction.dtype).tiny)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """One value per image, (n,), shaped (n, 1, ...) to multiply with the images."""
    return values.view(-1, *[1] * (x.dim() - 1))


def room_along(direction: Tensor, x: Tensor) -> Tensor:
    """How far each pixel can move along the sign of `direction` before it meets 0 or 1."""
    return torch.where(direction > 0, 1 - x, x)


def into_box(delta: Tensor, x: Tensor) -> Tensor:
    """The perturbation cut so that x + delta lies in [0, 1]; no entry grows or changes sign."""
    return (x + delta).clamp(0, 1) - x
