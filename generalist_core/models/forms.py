"""Whether another form of a model, such as a folded or compiled one, is the model's own function.

It is tried out on copies. A form that was not shown to be the same function is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from generalist_core.fingerprints import model_fingerprint
from generalist_core.models.build import Shape
from generalist_core.models.state import BufferPlaces, copied
from generalist_core.once import warn_once
from generalist_core.randomness import global_seed

Logits = Callable[[Tensor], Tensor]
FormOf = Callable[[nn.Module], Logits]

UNABLE = (AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What `torch.fx`, torch's compiler, and code that needs real tensors raise on symbolic ones."""


def trial_images(
    n: int,
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.preserve_format,
) -> list[Tensor]:
    """Two batches of `n` random images (c, h, w)."""
    source = torch.Generator().manual_seed(0)
    images = torch.rand(2, n, *shape, generator=source).to(device, dtype)
    return [batch.to(memory_format=memory_format) for batch in images]


def is_same_function(
    model: nn.Module,
    plain_of: FormOf,
    form_of: FormOf,
    images: Sequence[Tensor],
    *,
    what: str,
    trains: bool = False,
    tolerance: float | None = None,
) -> bool:
    """Whether `form_of` makes the same function of a model as `plain_of`, found by trial.

    Both make a forward of a copy. Twice, the copies are trained for one forward, and their weights
    and buffers are changed alike; the second time shows whether a form still follows after calls.
    Each time, on two batches (n, c, h, w), each shown twice, both must give equal logits and
    gradients up to rounding: gradients of the images in eval mode; with `trains`, in train mode,
    those of the weights, and equal buffers. Random draws start from equal seeds. Otherwise, or if a
    form raises one of `UNABLE`, the log says once for each class of model `what` is not done.

    `tolerance` is that of logits, relative, by default the square root of the rounding of the
    images' type. Gradients may differ by twice its own root, as rounding moves activations across
    the kinks of ReLUs, but by half at most: those of a compiled ResNet-18 differ by 26 % in
    bfloat16.
    """
    tolerance = tolerance or torch.finfo(images[0].dtype).eps ** 0.5
    reason: str | None
    try:
        with global_seed(0, images[0].device):
            reason = _difference(model, plain_of, form_of, images, trains, tolerance)
    except torch.OutOfMemoryError:
        raise
    except UNABLE as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        say_once(model, what, reason)
    return reason is None


_TRIED: dict[Hashable, bool] = {}


def tried_once(
    model: nn.Module, images: Sequence[Tensor], form: Hashable, try_out: Callable[[], bool]
) -> bool:
    """What `try_out` finds of a form of the model on images as these, as found before if it was.

    A trial takes as long as dozens of training steps, and every run of a process needs it. `form`
    tells the form from all others. Models are equal by fingerprint; without one all are tried.
    """
    name = model_fingerprint(model)
    if name is None:
        return try_out()
    key = name, form, tuple((x.shape, x.stride(), x.dtype, x.device) for x in images)
    if key not in _TRIED:
        _TRIED[key] = try_out()
    return _TRIED[key]


def say_once(model: nn.Module, what: str, reason: str) -> None:
    """Say once for each class of model why `what` is not done."""
    said = f"{what} in {type(model).__module__}.{type(model).__qualname__}"
    warn_once(f"{said}: {reason}", said)


def _difference(
    model: nn.Module,
    plain_of: FormOf,
    form_of: FormOf,
    images: Sequence[Tensor],
    trains: bool,
    tolerance: float,
) -> str | None:
    plain, other = copied(model), copied(model)
    tried = [(net, of(net), BufferPlaces(net)) for net, of in ((plain, plain_of), (other, form_of))]
    for change in range(2):
        for net, _, places in tried:
            _train_and_change(net, images[0], places, seed=change)
            net.train(trains)
        for call, x in enumerate(x for x in images for _ in range(2)):
            seen = []
            for net, logits_of, places in tried:
                with global_seed(call, x.device):
                    seen.append(_seen(net, logits_of, x, trains))
                places.restore()
            if reason := _mismatch(seen[0], seen[1], tolerance):
                return reason
        if trains and not _close(_values(other.buffers()), _values(plain.buffers()), tolerance):
            return "it has other buffers after a forward in train mode"
    return None


@torch.no_grad()
def _train_and_change(net: nn.Module, x: Tensor, places: BufferPlaces, *, seed: int) -> None:
    with global_seed(seed, x.device):
        net.train()(x)
    places.restore()
    source = torch.Generator().manual_seed(seed)
    for tensor in {id(t): t for t in (*net.parameters(), *net.buffers())}.values():
        _change(tensor, source)


def _change(tensor: Tensor, source: torch.Generator) -> None:
    """Other values of the same kind: indices stay indices, and variances positive."""
    if tensor.is_floating_point() or tensor.is_complex():
        factor, summand = torch.rand(2, *tensor.shape, generator=source).to(tensor)
        tensor.mul_(0.7 + 0.6 * factor)
        # to add to matrices of weights would let deep models overflow; zeros are elsewhere
        if not isinstance(tensor, nn.Parameter) or tensor.ndim < 2:
            tensor.add_(0.1 * summand)
    elif tensor.ndim > 0:
        tensor.copy_(tensor.flatten().flip(0).view_as(tensor))
    elif tensor.dtype is torch.bool:
        tensor.logical_not_()
    else:
        tensor.sub_(tensor.sign())  # towards zero, where an index is still one


def _seen(
    net: nn.Module, logits_of: Logits, x: Tensor, trains: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """The logits, and the gradients of the weights (`trains`) or of the images."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_(not trains)
    wanted = [p for p in net.parameters() if p.requires_grad] if trains else [x]
    with torch.enable_grad():
        logits = logits_of(x)
        directions = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype, device=x.device)
        value = (logits.flatten() * directions).sum()
    gradients = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    # a form that was recorded returns the same memory at every call
    return [logits.detach().clone()], [gradient.clone() for gradient in gradients]


def _mismatch(
    plain: tuple[list[Tensor], list[Tensor]],
    other: tuple[list[Tensor], list[Tensor]],
    tolerance: float,
) -> str | None:
    (logits, gradients), (other_logits, other_gradients) = plain, other
    if not all(tensor.isfinite().all() for tensor in (*logits, *gradients)):
        return "its logits or gradients are not finite once weights and buffers have changed"
    if not _close(other_logits, logits, tolerance):
        return "it has other logits once weights and buffers have changed"
    if not _close(other_gradients, gradients, min(2 * tolerance**0.5, 0.5)):
        return "it has other gradients"
    return None


def _close(others: Sequence[Tensor], tensors: Sequence[Tensor], tolerance: float) -> bool:
    """Whether the distance of all tensors together is within `tolerance` of their norm."""
    if [other.shape for other in others] != [tensor.shape for tensor in tensors]:
        return False
    pairs = zip(others, tensors, strict=True)
    distance, size = (
        sum(float(tensor.norm()) ** 2 for tensor in part)
        for part in ([other - tensor for other, tensor in pairs], tensors)
    )
    return distance <= tolerance**2 * size


def _values(buffers: Iterable[Tensor]) -> list[Tensor]:
    """Buffers as floating-point or complex numbers, with 0 where they are not finite."""
    numbers = (buffer if buffer.is_complex() else buffer.double() for buffer in buffers)
    return [number.nan_to_num(0, 0, 0) for number in numbers]
