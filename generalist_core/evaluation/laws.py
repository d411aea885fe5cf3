"""Laws of an evaluation: where one is broken, its numbers mean nothing, and it ends in an error.

Signs that an attack may have failed are no errors but findings; see `generalist_core.evaluation.indicators`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from generalist_core.attacks.laws import require_law
from generalist_core.fingerprints import state_digest

# The model


def require_sound_model(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Check a model on a few images, and against all labels `y`; returns its number of classes.

    Raises:
        EvaluationError: train mode, no (n, classes) logits, fewer classes than labels, NaN,
            probabilities instead of logits, or no gradient with respect to the images.
    """
    require_eval_mode(model)
    with torch.enable_grad():
        logits: Tensor = model(x.detach().requires_grad_())
    shape = tuple(logits.shape)
    law = "logits of shape (n, classes), classes >= 2"
    cure = "The model must map images (n, c, h, w) to one logit a class."
    require_law(len(shape) == 2 and shape[0] == len(x) and shape[1] >= 2, law, f"{shape}", cure)
    n_labels = 1 + int(y.max())
    cure = "Is this the data that the model was trained for?"
    require_law(shape[1] >= n_labels, "a logit for each label", f"{shape[1]} of {n_labels}", cure)
    require_numbers(logits)
    require_logits(logits)
    cure = (
        "A model that cuts the gradient defeats every attack but Square; attack what it computes."
    )
    require_law(logits.requires_grad, "logits differentiable in the images", "no gradient", cure)
    return shape[1]


def require_eval_mode(model: nn.Module) -> None:
    """Check that no part of the model is in train mode."""
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    got = f"train mode of {', '.join(training[:3])}"
    require_law(not training, "a model in eval mode", got, "Call model.eval() first.")


def require_numbers(logits: Tensor) -> None:
    """Check that no logit is NaN."""
    n_bad = int(logits.isnan().any(1).sum())
    got = f"NaN for {n_bad} of {len(logits)} images"
    require_law(n_bad == 0, "logits are numbers", got, "Training may have diverged.")


def require_logits(logits: Tensor) -> None:
    """Check that the outputs are not probabilities, whose gradients vanish."""
    values = logits.detach()
    in_range = bool(((values >= 0) & (values <= 1 + 1e-5)).all())
    sums_to_one = bool(((values.sum(1) - 1).abs() < 1e-4).all())
    got, cure = "rows in [0, 1] that sum to 1", "Take the softmax off the model's end."
    require_law(not (in_range and sums_to_one), "outputs are logits", got, cure)


# The verdicts


def require_claim(name: str, claimed_correct: Tensor, recomputed: Tensor) -> None:
    """Check claimed verdicts, (n,) True = correct, against verdicts recomputed on the same images.

    One verdict in a thousand, or one at all, may differ: rounding depends on the batch.
    """
    n_differing = int((claimed_correct != recomputed).sum())
    claimed, found = float(claimed_correct.float().mean()), float(recomputed.float().mean())
    law = f"recomputed accuracy under {name} equals its claim of {claimed:.4f}"
    got = f"{found:.4f} ({n_differing} of {len(recomputed)} verdicts differ)"
    cure = "The model answers differently when asked again, or the claim is of another model."
    require_law(n_differing <= max(1, len(recomputed) // 1000), law, got, cure)


def require_natural_at_zero(natural: Tensor, at_zero: Tensor) -> None:
    """Check that an attack of radius 0 leaves the natural verdicts, (n,), as they are."""
    law = f"accuracy at epsilon 0 equals the natural {float(natural.float().mean()):.4f}"
    cure = "Attack and natural evaluation do not see the same images, labels or model."
    same = bool((natural == at_zero).all())
    require_law(same, law, f"{float(at_zero.float().mean()):.4f}", cure)


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Check that the block leaves the model and the process as they were.

    That is: parameters, buffers, their `.grad`, the mode of each part, torch's global random state
    on the CPU, the trace function.

    Raises:
        EvaluationError: one of them changed; the message names it.
    """
    before = _traces(model)
    yield
    after = _traces(model)
    changed = [name for name, value in before.items() if after[name] != value]
    cure = "The attack must work on a copy of the model and draw from generators of its own."
    require_law(not changed, "evaluation changes nothing", f"new {', '.join(changed)}", cure)


def _traces(model: nn.Module) -> dict[str, object]:
    return {
        "weights": state_digest(model),
        "gradients": [p.grad is not None for p in model.parameters()],
        "train/eval mode": [part.training for part in model.modules()],
        "random state": torch.random.get_rng_state().numpy().tobytes(),
        "trace function": sys.gettrace(),
    }
