"""Whether a model gives the same images the same logits; otherwise comparisons differ by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist_core.evaluation.indicators import Indicator, Probe, fraction_of, indicator_above


def unstable(probe: Probe) -> Indicator | None:
    """The model does not give the same images the same logits, whatever the reason."""
    return randomised(probe) or batch_dependent(probe)


def randomised(probe: Probe) -> Indicator | None:
    """The logits of three forwards of the same images differ by more than rounding."""
    with torch.no_grad():
        first, *others = (probe.logits_of(probe.x) for _ in range(3))
    differs = torch.stack([_differ(first, other, 1e-5) for other in others]).any(0)
    fraction = fraction_of(differs)
    message = f"the logits of {fraction:.1%} of the images differ between forwards"
    return indicator_above(0, "randomised", message, fraction)


def batch_dependent(probe: Probe, n: int = 8) -> Indicator | None:
    """The logits of the last `n` images differ, by more than rounding, without the other images.

    Each image is given twice, because BatchNorm without running statistics refuses a single one.
    """
    with torch.no_grad():
        together = probe.logits_of(probe.x)[-n:]
        alone = torch.cat([probe.logits_of(image.repeat(2, 1, 1, 1))[:1] for image in probe.x[-n:]])
    fraction = fraction_of(_differ(together, alone, 1e-3))
    message = f"the logits of {fraction:.1%} of {len(alone)} images differ alone and in a batch"
    return indicator_above(0, "batch-dependent", message, fraction)


def _differ(logits: Tensor, others: Tensor, tolerance: float) -> Tensor:
    """Which rows, (n,), of the logits differ by more than `tolerance` times their largest."""
    return ~((logits - others).abs().amax(1) <= tolerance * logits.abs().amax(1))
