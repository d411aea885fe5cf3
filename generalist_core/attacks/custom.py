"""Custom attacks and losses: functions by name, held to what they declare and to the laws.

An attack is called as `attack(logits_of, x, y, *, epsilon, noise)`. For images `x`, (n, c, h, w) in
[0, 1], with labels `y`, (n,), it returns adversarial images in the ball around `x` and in [0, 1].
`logits_of` maps images to logits, (n, classes), and `attacks.gradient.input_gradient` takes its
gradient. Random numbers must come from `noise.uniform(x)` and `noise.normal(x)`, in the shape of
`x`, so that runs can be resumed, and warm-ups shared, with bit-equal results.

A loss is called as `loss(logits_of, x, x_adv, y)` and returns the mean over a batch. A natural
expert passes its images as both `x` and `x_adv`. Where an expert mixes images, `y` holds
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generalist_core.attacks.counting import Counted
from generalist_core.attacks.laws import require_in_ball
from generalist_core.config import CustomAttack
from generalist_core.randomness import Noise
from generalist_core.user_code import load_pinned
from generalist_core.validation import EvaluationError


def custom_attack(
    attack: CustomAttack, logits_of: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """The adversarial images of a custom attack.

    Raises:
        EvaluationError: the attack left the ball or the box, cost more than it declares, changed
            the type of the images, or drew from torch's global random state.
        InvalidConfigError: there is no such function, or its file has changed.
    """
    name, counted = attack.function, Counted(logits_of)
    state = torch.random.get_rng_state()
    images: Tensor = load_pinned(attack.function, attack.digest)(
        counted, x, y, epsilon=attack.epsilon, noise=noise
    )
    if not isinstance(images, Tensor) or images.dtype != x.dtype:
        raise EvaluationError(
            f"The attack {name} must return images of type {x.dtype}, but got "
            f"{getattr(images, 'dtype', type(images))}. Keep the type of `x`."
        )
    if not torch.equal(state, torch.random.get_rng_state()):
        raise EvaluationError(
            f"The attack {name} must leave torch's global random state alone, but has changed it. "
            "Draw from `noise`."
        )
    spent = (counted.forward_images + counted.gradient_images) / len(x)
    if spent > attack.forward_images:
        raise EvaluationError(
            f"The attack {name} must cost at most forward_images={attack.forward_images} per "
            f"image, but got {spent:g}. Declare what it costs."
        )
    require_in_ball(name, images.detach(), x, norm=attack.norm, epsilon=attack.epsilon)
    return images.detach()
