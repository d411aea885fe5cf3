"""Laws of an evaluation: if one is broken, its numbers mean nothing, and it ends in an error.

Signs that an attack may have failed are not errors but indicators; see
`generalist_core.evaluation.indicators`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from generalist_core.attacks.laws import require_numbers
from generalist_core.fingerprints import state_digest
from generalist_core.models.build import why_no_logits
from generalist_core.validation import EvaluationError


def require_sound_model(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Check a model on a few images `x` and against all labels `y`; return its number of classes.

    Raises:
        EvaluationError: the model is in train mode, returns no logits of shape (n, classes) but
            NaN or probabilities, has fewer classes than labels, or has no gradient with respect to
            the images.
    """
    require_eval_mode(model)
    with torch.enable_grad():
        logits: Tensor = model(x.detach().requires_grad_())
    n_classes = require_classes(logits, n_images=len(x), n_labels=1 + int(y.max()))
    require_numbers(logits)
    if reason := why_no_logits(logits):
        raise EvaluationError(reason)
    if not logits.requires_grad:
        raise EvaluationError(
            "The logits must be differentiable with respect to the images, but got no gradient. A "
            "model that cuts the gradient defeats every attack but Square; attack what it computes "
            "without the cut."
        )
    return n_classes


def require_classes(logits: Tensor, *, n_images: int, n_labels: int) -> int:
    """Check that there are logits, (n, classes), for each image and label; return their number."""
    shape = tuple(logits.shape)
    if len(shape) != 2 or shape[0] != n_images or shape[1] < 2:
        raise EvaluationError(
            "The model must map images (n, c, h, w) to logits of shape (n, classes) with classes "
            f">= 2, but got {shape} for {n_images} images. Give a single logit z as the two logits "
            "(0, z)."
        )
    if shape[1] < n_labels:
        raise EvaluationError(
            f"The model must have a logit for each label, but got {shape[1]} of {n_labels}. Is "
            "this the data that the model was trained for?"
        )
    return shape[1]


def require_eval_mode(model: nn.Module) -> None:
    """Check that no part of the model is in train mode."""
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise EvaluationError(
            f"The model must be in eval mode, but got train mode of {', '.join(training[:3])}. "
            "Call model.eval() first."
        )


def require_claim(name: str, claimed_correct: Tensor, recomputed: Tensor) -> None:
    """Check claimed verdicts, (n,) True = correct, against verdicts recomputed on the same images.

    One verdict in a thousand, and always one, may differ, because rounding depends on the batch.
    """
    n_differing = int((claimed_correct != recomputed).sum())
    if n_differing > max(1, len(recomputed) // 1000):
        claimed, counted = (float(v.float().mean()) for v in (claimed_correct, recomputed))
        raise EvaluationError(
            f"The recomputed accuracy under {name} must equal its claim of {claimed:.4f}, but got "
            f"{counted:.4f} ({n_differing} of {len(recomputed)} verdicts differ). The model "
            "answers differently when asked again, or the claim is about another model."
        )


def require_natural_at_zero(natural: Tensor, at_zero: Tensor) -> None:
    """Check that an attack of radius 0 leaves the natural verdicts, (n,), unchanged."""
    if not torch.equal(natural, at_zero):
        accuracy, attacked = (float(v.float().mean()) for v in (natural, at_zero))
        raise EvaluationError(
            f"The accuracy at epsilon 0 must equal the natural {accuracy:.4f} image by image, but "
            f"got {attacked:.4f}. The attack and the natural evaluation do not see the same "
            "images, labels or model."
        )


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Check that the block leaves the model and the process as they were.

    It checks parameters, buffers, their `.grad`, the mode of each part, torch's global random state
    on the CPU, and the trace function.

    Raises:
        EvaluationError: one of them has changed; the message names it.
    """
    before = _traces(model)
    yield
    after = _traces(model)
    changed = [name for name, value in before.items() if after[name] != value]
    if changed:
        raise EvaluationError(
            f"An evaluation must change nothing, but got new {', '.join(changed)}. The attack must "
            "work on a copy of the model and draw from separate generators."
        )


def _traces(model: nn.Module) -> dict[str, object]:
    return {
        "weights": state_digest(model),
        "gradients": [p.grad is not None for p in model.parameters()],
        "train/eval mode": [part.training for part in model.modules()],
        "random state": torch.random.get_rng_state().numpy().tobytes(),
        "trace function": sys.gettrace(),
    }
