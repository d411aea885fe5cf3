"""Attacks as plain functions over tensors, from images to adversarial images.

`logits_of` maps images (n, c, h, w) in [0, 1] to logits (n, classes); `y` holds labels (n,), or
class probabilities (n, classes) for attacks on the cross-entropy or on KL. Only the gradient with
respect to the images is taken: parameters, their `.grad`, buffers, the train/eval mode and the
global random state are left alone. The model should be in eval mode.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.attacks.balls import BALLS, Ball, Linf, normalised, shrinking
from generalist_core.attacks.custom import custom_attack
from generalist_core.config import (
    FGSM,
    NFGSM,
    PGD,
    Attack,
    CustomAttack,
    MultiTargeted,
    SeveralAttacks,
)
from generalist_core.config.attacks import DRAWN
from generalist_core.randomness import Noise

Logits = Callable[[Tensor], Tensor]

AttackLoss = Callable[[Tensor], Tensor]

LEAST_ERROR = 0.01


def perturb(attack: Attack, logits_of: Logits, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
    """Adversarial images of `attack` for the images `x`, of the same shape and dtype.

    Those of an average over several attacks are the images of each, one attack after the other.
    """
    match attack:
        case FGSM():
            return fgsm(attack, logits_of, x, y)
        case NFGSM():
            return n_fgsm(attack, logits_of, x, y, noise)
        case PGD():
            return pgd(attack, logits_of, x, y, noise)
        case MultiTargeted():
            return multi_targeted(attack, logits_of, x, y, noise)
        case SeveralAttacks():
            return several(attack, logits_of, x, y, noise)
        case CustomAttack():
            return custom_attack(attack, logits_of, x, y, noise)


def fgsm(attack: FGSM, logits_of: Logits, x: Tensor, y: Tensor) -> Tensor:
    """One steepest step of length epsilon (Goodfellow et al. 2015)."""
    ball = BALLS[attack.norm]
    gradient = input_gradient(logits_of, x, cross_entropy_of(y))
    step = attack.epsilon * ball.steepest(gradient, x, torch.zeros_like(x), attack.epsilon)
    return x + ball.project(step, x, attack.epsilon)


def n_fgsm(attack: NFGSM, logits_of: Logits, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
    """One step from a noisy image, not projected onto the ball (de Jorge et al. 2022, eq. 5).

    The noisy image is clipped to [0, 1] before its gradient is taken, as in the authors' code.
    """
    noisy = (x + Linf.start(x, attack.noise_scale * attack.epsilon, noise)).clamp(0, 1)
    gradient = input_gradient(logits_of, noisy, cross_entropy_of(y))
    step = attack.relative_step_size * attack.epsilon * gradient.sign()
    return (noisy + step).clamp(0, 1)


def pgd(attack: PGD, logits_of: Logits, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
    """Projected gradient ascent on the attack's loss (Madry et al. 2018, section 2.1).

    In L1 it begins in the larger ball of `shrinking`, with steps in proportion.
    """
    ball = BALLS[attack.norm]
    factors = shrinking(attack.steps) if attack.norm == "l1" else [1.0] * attack.steps
    path = [(factor * attack.epsilon, factor * attack.step_size) for factor in factors]
    loss = attack_loss(attack, logits_of, x, y)
    delta = torch.zeros_like(x)
    if attack.random_start:
        # TRADES starts near the image (Zhang et al. 2019, their code), in every norm.
        near, (first, _) = attack.loss == "kl", path[0]
        start = 0.001 * noise.normal(x) if near else ball.start(x, first, noise)
        delta = ball.project(start, x, first)
    return ascend(ball, logits_of, x, delta, loss, path=path, momentum=attack.momentum)


def ascend(
    ball: Ball,
    logits_of: Logits,
    x: Tensor,
    delta: Tensor,
    loss: AttackLoss,
    *,
    path: Sequence[tuple[float, float]],
    momentum: float = 0.0,
) -> Tensor:
    """`x + delta` after steps along `path`: the radius of the ball, and the size, of each."""
    velocity = torch.zeros_like(x)
    for (radius, size), (following, _) in pairwise([*path, path[-1]]):
        direction = input_gradient(logits_of, x + delta, loss)
        if momentum > 0:
            direction = velocity = momentum * velocity + normalised(direction, 1)
        step = size * ball.steepest(direction, x, delta, radius)
        delta = ball.project(delta + step, x, following)
    return (x + delta).clamp(0, 1)


def multi_targeted(
    attack: MultiTargeted, logits_of: Logits, x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """The images that are misclassified at last, towards one class after the other.

    Gowal et al. 2019, "An Alternative Surrogate Loss for PGD-based Adversarial Testing". The noise
    of an image does not depend on what becomes of others.
    """
    ball, steps = BALLS[attack.norm], attack.steps
    radii = [
        f * attack.epsilon for f in ([1.0] * steps if attack.norm == "linf" else shrinking(steps))
    ]
    first = 6 if attack.norm == "l1" else 2
    path = [(radius, radius * first * (1 - n / steps)) for n, radius in enumerate(radii)]
    with torch.no_grad():
        logits = logits_of(x)
    reached, left = x.clone(), (logits.argmax(1) == y).nonzero()[:, 0]
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    targets = wrong.topk(min(attack.n_targets, wrong.shape[1] - 1)).indices
    for target in targets.unbind(1):
        delta = ball.project(ball.start(x, radii[0], noise), x, radii[0])
        if len(left) > 0:
            loss = targeted_margin(target[left], y[left])
            reached[left] = ascend(ball, logits_of, x[left], delta[left], loss, path=path)
            with torch.no_grad():
                left = left[logits_of(reached[left]).argmax(1) == y[left]]
    return reached


def several(
    attack: SeveralAttacks, logits_of: Logits, x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """The images of each attack, of the worst for each image or step, or of one that is drawn."""
    if attack.combine in DRAWN:
        return perturb(attack.parts[drawn(attack, x, noise)], logits_of, x, y, noise)
    if attack.combine == "steepest":
        return steepest(attack.parts, logits_of, x, y)
    crafted = [perturb(part, logits_of, x, y, noise) for part in attack.parts]
    if attack.combine == "average":
        return torch.cat(crafted)
    return worst_of(crafted, logits_of, y)


def steepest(parts: Sequence[PGD], logits_of: Logits, x: Tensor, y: Tensor) -> Tensor:
    """The images of MSD (Maini et al. 2020, algorithm 1), which chooses the norm in every step.

    From the image itself each attack makes its step and projects onto its ball, and each image
    goes on from where its cross-entropy is largest.
    """
    reached = x
    for _ in range(parts[0].steps):
        delta, gradient = reached - x, input_gradient(logits_of, reached, cross_entropy_of(y))
        following = []
        for part in parts:
            ball = BALLS[part.norm]
            step = part.step_size * ball.steepest(gradient, x, delta, part.epsilon)
            following.append((x + ball.project(delta + step, x, part.epsilon)).clamp(0, 1))
        reached = worst_of(following, logits_of, y)
    return reached


@torch.no_grad()
def worst_of(crafted: Sequence[Tensor], logits_of: Logits, y: Tensor) -> Tensor:
    """For each image the one with the largest cross-entropy, of several forms of a batch."""
    losses = [F.cross_entropy(logits_of(each), y, reduction="none") for each in crafted]
    worst = torch.stack(losses).argmax(0)
    return torch.stack(list(crafted))[worst, torch.arange(len(y), device=y.device)]


def drawn(attack: SeveralAttacks, x: Tensor, noise: Noise, errors: Sequence[float] = ()) -> int:
    """Which of several attacks a batch meets: the probabilities are those of `errors`, or equal.

    Errors below `LEAST_ERROR` count as that, so that no attack is given up.
    """
    parts = [max(error, LEAST_ERROR) for error in errors] or [1.0] * len(attack.parts)
    one = float(noise.uniform(x.flatten()[:1]))
    return bisect(list(accumulate(parts)), one * sum(parts))


def input_gradient(logits_of: Logits, x: Tensor, loss: AttackLoss) -> Tensor:
    """The gradient of `loss(logits_of(x))` with respect to the images only."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(logits_of(x).to(x.dtype))
    (gradient,) = torch.autograd.grad(value, x)
    return gradient


def attack_loss(attack: PGD, logits_of: Logits, x: Tensor, y: Tensor) -> AttackLoss:
    """What PGD maximises: a sum over the images, so that their gradients are independent."""
    match attack.loss:
        case "cross-entropy":
            return cross_entropy_of(y)
        case "margin":
            return lambda logits: margin(logits, y).sum()
        case "kl":
            with torch.no_grad():
                clean = logits_of(x).to(x.dtype).softmax(1)
            return lambda logits: F.kl_div(logits.log_softmax(1), clean, reduction="sum")


def cross_entropy_of(y: Tensor) -> AttackLoss:
    """The summed cross-entropy against labels `y`."""
    return lambda logits: F.cross_entropy(logits, y, reduction="sum")


def targeted_margin(target: Tensor, y: Tensor) -> AttackLoss:
    """How far the logits of classes `target`, (n,), lie above the true ones, summed."""
    return lambda logits: (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).sum()


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest wrong logit minus the true one, (n,): positive where misclassified.

    The objective f_6 of Carlini & Wagner 2017 without its hinge, as in untargeted PGD on the CW
    loss.
    """
    true = logits.gather(1, y[:, None]).squeeze(1)
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return wrong - true


def n_gradients(attack: FGSM | NFGSM | PGD) -> int:
    """How many input gradients one call of the attack evaluates."""
    return attack.steps if isinstance(attack, PGD) else 1
