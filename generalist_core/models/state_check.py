"""Whether a model is determined by the state that is averaged, checked before any training."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from generalist_core.models.build import Shape
from generalist_core.models.derived_check import require_sound_derived
from generalist_core.models.state import averaged_tensors, derived_keys, is_averaged, named_tensors
from generalist_core.randomness import global_seed
from generalist_core.validation import InvalidConfigError, did_you_mean

N_IMAGES = 2

FAR = 10**6
"""By how many steps a counter is set ahead, to see whether the model depends on it."""


def require_sound_state(model: nn.Module, shape: Shape) -> None:
    """Check what one forward in training mode changes; it is done on a copy, with random images.

    Raises:
        InvalidConfigError: the forward makes or replaces parameters, or changes the shape or type
            of a buffer; or what the model computes in eval mode depends on something that training
            changes and that is not averaged, such as an integer buffer or an attribute; or on an
            averaged buffer that follows from the weights, see
            `generalist_core.models.derived_check`.
    """
    trial = copy.deepcopy(model)
    images = torch.rand(2, N_IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    before, places = _layout(trial), _places(trial)
    _output(trial.train(), images[0])
    after = _layout(trial)
    if moved := sorted(n for n in before | after if before.get(n) != after.get(n)):
        raise InvalidConfigError(
            "A forward must keep every parameter in its place, and every buffer in its shape and "
            f"type, but changes {', '.join(moved[:3])}. Build the model with all of them, and let "
            "only the optimizer change parameters."
        )
    require_sound_derived(model, images)
    if found := _decisive(trial.eval(), images[1], places):
        raise InvalidConfigError(
            "What training changes and the model reads in eval mode must be averaged, so a "
            f"parameter or a floating-point buffer of finite numbers, but {', '.join(found[:3])} "
            "is not. Register it as such a buffer."
        )


def require_trainable(model: nn.Module) -> None:
    """Check the tensors of a model as it is built.

    Raises:
        InvalidConfigError: a parameter or buffer has no values yet (lazy, meta) or is sparse, or is
            averaged and expanded; no parameter requires a gradient; there is state that is no
            tensor (`get_extra_state`); or `derived_buffers` does not name buffers of its module.
    """
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise InvalidConfigError(
                "The state of a model must be parameters and buffers, which can be averaged, but "
                f"{name or type(module).__name__} has `get_extra_state`. Register buffers instead."
            )
        _require_declared(name, module)
    for name, module, key, tensor in named_tensors(model):
        if is_lazy(tensor):
            raise InvalidConfigError(
                "Every parameter and buffer must have its shape before training, but "
                f"{name} has none. Call the model on an image once where it is built."
            )
        if tensor.is_meta or tensor.layout is not torch.strided:
            raise InvalidConfigError(
                "Every parameter and buffer must be a dense tensor with values, but "
                f"{name} is {'on the meta device' if tensor.is_meta else tensor.layout}. Build the "
                "model on the CPU from dense tensors."
            )
        is_expanded = any(
            n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True)
        )
        if is_expanded and is_averaged(module, key):
            raise InvalidConfigError(
                "Every number that is averaged must have its own place in memory, but "
                f"{name} is expanded. Build it with `.clone()`."
            )
    _require_some_trained(model)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let the parameters whose names fit a shell pattern require no gradient.

    Raises:
        InvalidConfigError: no name fits a pattern, or no parameter is left to be trained.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InvalidConfigError(
                f"Each pattern in `frozen` must fit a name of a parameter, but {pattern!r} fits "
                f"none.{did_you_mean(pattern, names)} The names are such as {', '.join(names[:3])}."
            )
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    _require_some_trained(model)


def _require_some_trained(model: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        n_frozen = len(list(model.parameters()))
        raise InvalidConfigError(
            f"At least one parameter must require a gradient, but got {n_frozen} that do not. "
            "Leave the part that is to be trained unfrozen: `requires_grad_(True)`."
        )


def _require_declared(name: str, module: nn.Module) -> None:
    declared = getattr(module, "derived_buffers", ())
    is_list = isinstance(declared, tuple | list)
    can_recompute = not declared or hasattr(module, "recompute_derived_buffers")
    if not (is_list and can_recompute and all(key in module._buffers for key in declared)):
        raise InvalidConfigError(
            "`derived_buffers` must be a tuple of names of the module's own buffers, beside a "
            f"method `recompute_derived_buffers`, but got {declared!r} in "
            f"{name or type(module).__name__}."
        )


def _layout(model: nn.Module) -> dict[str, object]:
    """What a forward must leave: where parameters are, and the shapes and types of all tensors."""
    return {
        name: (
            tensor.shape,
            tensor.dtype,
            (id(tensor), tensor.data_ptr()) if key in module._parameters else None,
        )
        for name, module, key, tensor in named_tensors(model)
    }


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A buffer or attribute that is not averaged, and its value before the forward."""

    name: str
    owner: MutableMapping[str, Any]
    key: str
    value: Any


def _places(model: nn.Module) -> list[_Place]:
    shared: list[object] = [*model.modules(), *model.parameters(), *model.buffers()]
    internals = vars(nn.Module()).keys()
    places = []
    for path, module in model.named_modules():
        kept = derived_keys(module)
        plain = [k for k in module._buffers if k not in kept and not is_averaged(module, k)]
        owned = [(module._buffers, key) for key in plain]
        owned += [(vars(module), key) for key in vars(module) if key not in internals]
        for owner, key in owned:
            memo = {id(part): part for part in shared if part is not owner.get(key)}
            value = copy.deepcopy(owner[key], memo)
            name = f"{path}.{key}" if path else key
            places.append(_Place(name=name, owner=owner, key=key, value=value))
    return places


def _decisive(model: nn.Module, x: Tensor, places: list[_Place]) -> list[str]:
    """The places without whose change, or with more of it, the model computes something else."""
    expected = _output(model, x)
    if not _same(_output(model, x), expected):
        return []
    for other in (lambda before, _: before, _far):
        if not _same(_with(model, x, places, other), expected):
            alone = [p.name for p in places if not _same(_with(model, x, [p], other), expected)]
            return alone or [place.name for place in places]
    return []


def _with(
    model: nn.Module, x: Tensor, places: list[_Place], other: Callable[[Any, Any], Any]
) -> object:
    """The output with other values in these places: `other(before, after)`."""
    averaged = {name: tensor.clone() for name, tensor in averaged_tensors(model).items()}
    present = [place.owner[place.key] for place in places]
    for place, value in zip(places, present, strict=True):
        place.owner[place.key] = other(_fresh(place.value), value)
    output = _output(model, x)
    for place, value in zip(places, present, strict=True):
        place.owner[place.key] = value
    for name, tensor in averaged_tensors(model).items():
        tensor.copy_(averaged[name])
    return output


def _fresh(value: Any) -> Any:
    """A copy, so that a forward that writes to it leaves the original."""
    return value.clone() if isinstance(value, Tensor) else copy.copy(value)


def _far(before: Any, after: Any) -> Any:
    """A counter after many steps; another value as it is."""
    counts = type(before) is int and type(after) is int
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        whole = not (before.is_floating_point() or before.is_complex())
        counts = whole and before.dtype is not torch.bool and before.numel() == 1
    return before + FAR * (after - before) if counts else after


@torch.no_grad()
def _output(model: nn.Module, x: Tensor) -> object:
    with global_seed(0, torch.device("cpu")):
        return model(x.clone())


def _same(a: object, b: object) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
