"""Whether buffers that follow from the weights are recomputed, not averaged.

Hand-written spectral normalisation keeps the vectors of a power iteration in buffers. The average
of such vectors is too short, and is not what the averaged weights make: a mixture would be another
function. Torch's own is known, see `generalist_core.models.state`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generalist_core.models.state import (
    copied,
    declared_keys,
    fix_averaged,
    is_averaged,
    named_tensors,
    recompute_derived,
)
from generalist_core.randomness import global_seed
from generalist_core.validation import InvalidConfigError


@torch.no_grad()
def require_sound_derived(model: nn.Module, images: Tensor) -> None:
    """Check, on copies and two batches (2, n, c, h, w), what forwards make of averaged buffers.

    Raises:
        InvalidConfigError: an averaged buffer is computed from the weights, or a module does not
            compute its `derived_buffers` from the weights alone.
    """
    if found := _computed_from_weights(model, images):
        raise InvalidConfigError(
            "A buffer that training computes from the weights must not be averaged, as that would "
            f"not be what the averaged weights make, but {', '.join(found[:3])} would be. Name it "
            "in `derived_buffers` of its module and set it in `recompute_derived_buffers()`, or "
            "use torch.nn.utils.parametrizations."
        )
    one, other = copied(model), copied(model)
    for _, module, key, tensor in named_tensors(other):
        if key in declared_keys(module):
            tensor.mul_(0.5).add_(0.1)
    recompute_derived(one)
    recompute_derived(other)
    pairs = zip(named_tensors(one), named_tensors(other), strict=True)
    for (name, module, key, tensor), (*_, again) in pairs:
        if key in declared_keys(module) and not _close(again, tensor):
            raise InvalidConfigError(
                "`recompute_derived_buffers()` must set each of the `derived_buffers` from the "
                f"weights alone, but {name} depends on its former values."
            )


def _computed_from_weights(model: nn.Module, images: Tensor) -> list[str]:
    """The averaged buffers that eval mode reads and that a forward in train mode makes of weights.

    These come out the same from half their values and with other images, but not with other
    weights. A running average, of images or of weights, depends on its former values.
    """
    start = copied(model).train()
    fix_averaged(start)
    _forward(start, images[0])  # what was 0 would be equal to its half
    expected = _made(start, images[0])
    alike = (_made(start, images[0], share=0.5), _made(start, images[1]))
    reweighted = _made(start, images[0], is_reweighted=True)
    return [
        name
        for name, value in expected.items()
        if all(_close(other[name], value) for other in alike)
        and not _close(reweighted[name], value)
        and _is_read(start, name, images[1])
    ]


def _made(
    start: nn.Module, x: Tensor, *, share: float = 1.0, is_reweighted: bool = False
) -> dict[str, Tensor]:
    """The averaged buffers after a forward from a share of them, or from other weights."""
    trial, source = copied(start), torch.Generator().manual_seed(0)
    for _, module, key, tensor in named_tensors(trial):
        if key in module._parameters and is_reweighted and is_averaged(module, key):
            tensor.mul_(0.7 + 0.6 * torch.rand(tensor.shape, generator=source))
    for buffer in _averaged_buffers(trial).values():
        buffer.mul_(share)
    _forward(trial, x)
    return _averaged_buffers(trial)


def _is_read(start: nn.Module, name: str, x: Tensor) -> bool:
    trial = copied(start).eval()
    before = _forward(trial, x)
    _averaged_buffers(trial)[name].mul_(0.5)
    return not _close(_forward(trial, x), before)


def _averaged_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, module, key, tensor in named_tensors(model)
        if key in module._buffers and is_averaged(module, key)
    }


def _forward(model: nn.Module, x: Tensor) -> Tensor:
    with global_seed(0, torch.device("cpu")):
        output: Tensor = model(x.clone())
    return output


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)
