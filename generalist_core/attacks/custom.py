"""The user's own losses and attacks: functions by name, held to what they declare and to the laws.

An attack is called `attack(logits_of, x, y, *, epsilon, noise)`: it returns adversarial images for
the images `x`, (n, c, h, w) in [0, 1], of labels `y`, (n,), in the ball around them and in [0, 1].
`logits_of` maps images to logits, (n, classes); `attacks.input_gradient` takes its gradient.
Random numbers come from `noise.uniform(x)` and `noise.normal(x)`, in the shape of `x`: so a run can
go on, and warm-ups be shared, to equal bits.

A loss is called `loss(logits_of, x, x_adv, y)` and returns the mean over a batch; a natural expert
passes its images as both `x` and `x_adv`. Where an expert mixes images, `y` are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generalist_core.attacks.counting import Counted
from generalist_core.attacks.laws import require_in_ball, require_law
from generalist_core.config import CustomAttack
from generalist_core.randomness import Noise
from generalist_core.user_code import load_pinned


def custom_attack(
    attack: CustomAttack, logits_of: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """The adversarial images of the user's attack.

    Raises:
        EvaluationError: it left ball or box, cost more than it declares, or drew from elsewhere.
        InvalidConfigError: there is no such function, or its file has changed.
    """
    name, counted = f"attack {attack.function}", Counted(logits_of)
    state = torch.random.get_rng_state()
    images: Tensor = load_pinned(attack.function, attack.digest)(
        counted, x, y, epsilon=attack.epsilon, noise=noise
    )
    is_alike = isinstance(images, Tensor) and images.dtype == x.dtype
    law = f"{name} returns images of type {x.dtype}"
    require_law(is_alike, law, f"{getattr(images, 'dtype', type(images))}", "Keep that of `x`.")
    left = torch.equal(state, torch.random.get_rng_state())
    law = f"{name} leaves torch's global random state alone"
    require_law(left, law, "another", "Draw from `noise`.")
    spent = (counted.forward_images + counted.gradient_images) / len(x)
    law = f"{name} costs at most forward_images={attack.forward_images} an image"
    require_law(spent <= attack.forward_images, law, f"{spent:g}", "Declare what it costs.")
    require_in_ball(name, images.detach(), x, norm=attack.norm, epsilon=attack.epsilon)
    return images.detach()
