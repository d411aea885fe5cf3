"""The losses that experts minimise: means over a batch, from logits in at least float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from generalist_core.attacks.counting import Counted
from generalist_core.attacks.gradient import Logits
from generalist_core.config import MART, TRADES, CrossEntropy, CustomLoss, Loss
from generalist_core.user_code import load_pinned
from generalist_core.validation import EvaluationError


def training_loss(
    loss: Loss, logits_of: Logits, x: Tensor, x_adv: Tensor, y: Tensor, *, label_smoothing: float
) -> Tensor:
    """The expert's loss on clean images `x` and adversarial images `x_adv`, both (n, c, h, w).

    `y` are labels (n,); cross-entropy also takes class probabilities (n, classes). A natural expert
    passes the same images as `x` and `x_adv`.
    """
    match loss:
        case CrossEntropy():
            return F.cross_entropy(logits_of(x_adv), y, label_smoothing=label_smoothing)
        case TRADES():
            clean, adversarial = logits_of(x), logits_of(x_adv)
            natural = F.cross_entropy(clean, y, label_smoothing=label_smoothing)
            return natural + loss.beta * divergence(clean, adversarial).mean()
        case MART():
            clean, adversarial = logits_of(x), logits_of(x_adv)
            boosted = boosted_cross_entropy(adversarial, y, label_smoothing)
            doubt = 1 - clean.softmax(1).gather(1, y[:, None]).squeeze(1)
            return boosted + loss.beta * (divergence(clean, adversarial) * doubt).mean()
        case CustomLoss():
            return custom_loss(loss, logits_of, x, x_adv, y)


def divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(clean || adversarial) between the predicted distributions, (n,)."""
    log_clean, log_adversarial = clean.log_softmax(1), adversarial.log_softmax(1)
    return F.kl_div(log_adversarial, log_clean, reduction="none", log_target=True).sum(1)


def boosted_cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy plus -log(1 - largest wrong probability) (Wang et al. 2020, equation 7)."""
    log_probabilities = logits.log_softmax(1)
    others = log_probabilities.scatter(1, y[:, None], -torch.inf)
    best_wrong = others.argmax(1, keepdim=True)
    rest = log_probabilities.scatter(1, best_wrong, -torch.inf).logsumexp(1)
    return F.cross_entropy(logits, y, label_smoothing=label_smoothing) - rest.mean()


def custom_loss(
    loss: CustomLoss, logits_of: Callable[[Tensor], Tensor], x: Tensor, x_adv: Tensor, y: Tensor
) -> Tensor:
    """The user's loss, a scalar.

    Raises:
        EvaluationError: it is not a scalar with a gradient, or took more forwards than it declares.
        InvalidConfigError: there is no such function, or its file has changed.
    """
    name, counted = loss.function, Counted(logits_of)
    value: Tensor = load_pinned(loss.function, loss.digest)(counted, x, x_adv, y)
    if not (isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad):
        raise EvaluationError(
            f"The loss {name} must return a scalar with a gradient, but got "
            f"{getattr(value, 'shape', type(value))}. Return the mean over the batch."
        )
    spent = counted.forward_images / len(x)
    if spent > loss.n_forwards:
        raise EvaluationError(
            f"The loss {name} must take at most n_forwards={loss.n_forwards} per image, but got "
            f"{spent:g}. Declare the number it takes."
        )
    return value
