"""What the state of a model is, and what happens to each part of it when experts are mixed.

| tensor | when experts are averaged and mixed |
|---|---|
| parameter or buffer, of floating-point or complex numbers | averaged |
| singular vectors of spectral normalisation | recomputed, see `recompute_derived` |
| buffer that its module names in `derived_buffers` | recomputed by the module |
| integer or boolean buffer | left as it is in the model that the weights are loaded into |
| buffer with values that are not finite, such as a mask; normalisation of images | left as it is |

Which buffers have such values is decided once for a model and its copies, by `fix_averaged`. It
makes no difference whether a buffer is persistent. Models that this would make another function are
refused, see `generalist_core.models.state_check`.

A module that computes buffers from its weights names them in its attribute `derived_buffers`, and
computes them in its method `recompute_derived_buffers()`, whatever values they have.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from generalist_core.models.build import Normalised


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model.

    What hooks compute from parameters, as pruning and torch's older weight normalisation do, takes
    part in the graph of gradients and is copied as values; the hooks compute it again.
    """
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
    return copy.deepcopy(model, memo)


def moved(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model itself, on a device and in a floating-point type; complex numbers stay complex."""

    def converted(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, dtype.to_complex())
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    model._apply(converted)  # type: ignore[no-untyped-call]
    return model


def averaged_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that are averaged, detached, by name and in the order of the `state_dict`."""
    return {
        name: tensor.detach()
        for name, module, key, tensor in named_tensors(model)
        if is_averaged(module, key)
    }


def state_of(model: nn.Module) -> dict[str, Any]:
    """The `state_dict`, and the averaged buffers that are not persistent; for `load_state`."""
    return averaged_tensors(model) | model.state_dict()


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a `state_dict` with or without the buffers that are not persistent.

    Singular vectors of spectral normalisation are recomputed if they are missing.

    Raises:
        RuntimeError: a tensor is missing, other than those and integer buffers, or is unknown, or
            has another shape.
    """
    tensors, persistent = averaged_tensors(model), set(model.state_dict())
    missing = sorted((tensors.keys() & persistent) - state.keys())
    unknown = sorted(state.keys() - tensors.keys() - persistent)
    if missing or unknown:
        raise RuntimeError(f"{missing[:3]} are missing and {unknown[:3]} are unknown")
    model.load_state_dict({k: v for k, v in state.items() if k in persistent}, strict=False)
    for name in tensors.keys() & state.keys() - persistent:
        tensors[name].copy_(state[name])
    derived = {n for n, module, key, _ in named_tensors(model) if key in derived_keys(module)}
    if not derived <= state.keys():
        recompute_derived(model)


@torch.no_grad()
def recompute_derived(model: nn.Module) -> None:
    """Let spectral normalisation divide by the exact largest singular value of the weights.

    The power iteration of torch follows the weights step by step, and not at all in eval mode.
    Weights that are not finite are left alone. Modules recompute their own `derived_buffers`.
    """
    for module in model.modules():
        if declared_keys(module):
            module.recompute_derived_buffers()  # type: ignore[operator]
        for hook in _spectral_hooks(module):
            matrix = hook.reshape_weight_to_matrix(getattr(module, f"{hook.name}_orig"))
            _set_singular_vectors(matrix, *(module._buffers[key] for key in _vectors_of(hook)))
        if isinstance(module, parametrize.ParametrizationList):
            _recompute_parametrization(module)


def _recompute_parametrization(parts: parametrize.ParametrizationList) -> None:
    names = ["original"] if parts.is_tensor else [f"original{i}" for i in range(parts.ntensors)]
    given, was_training = [getattr(parts, name) for name in names], parts.training
    parts.eval()
    for part in parts:
        if isinstance(part, _SpectralNorm) and hasattr(part, "_u"):
            _set_singular_vectors(part._reshape_weight_to_matrix(given[0]), part._u, part._v)
        given = [part(*given)]
    parts.train(was_training)


def _set_singular_vectors(matrix: Tensor, u: Tensor | None, v: Tensor | None) -> None:
    assert u is not None
    assert v is not None
    if matrix.numel() and matrix.isfinite().all():
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        u.copy_(left[:, 0])
        v.copy_(right[0])


_NOT_AVERAGED = "_not_averaged"
"""The attribute in which a module and its copies keep the names of its buffers that are left."""


def fix_averaged(model: nn.Module) -> None:
    """Decide from the present values which buffers are averaged, for this model and its copies.

    A buffer whose values diverge later is then still averaged, as weights that diverge are.
    """
    for module in model.modules():
        left = frozenset(key for key in module._buffers if not is_averaged(module, key))
        vars(module)[_NOT_AVERAGED] = left


def is_averaged(module: nn.Module, key: str) -> bool:
    """Whether a module's own parameter or buffer of that name is averaged."""
    parameter, buffer = module._parameters.get(key), module._buffers.get(key)
    if parameter is not None:
        return parameter.is_floating_point() or parameter.is_complex()
    if _NOT_AVERAGED in vars(module):
        return buffer is not None and key not in vars(module)[_NOT_AVERAGED]
    if buffer is None or isinstance(module, Normalised) or key in derived_keys(module):
        return False
    return (buffer.is_floating_point() or buffer.is_complex()) and bool(buffer.isfinite().all())


def derived_keys(module: nn.Module) -> set[str]:
    """The names of a module's own buffers that are recomputed."""
    if isinstance(module, _SpectralNorm):
        return {"_u", "_v"}
    vectors = {key for hook in _spectral_hooks(module) for key in _vectors_of(hook)}
    return vectors | declared_keys(module)


def declared_keys(module: nn.Module) -> set[str]:
    """The names of the buffers that a module says it recomputes."""
    return set(getattr(module, "derived_buffers", ()))


def named_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Every parameter and buffer: its name, its module, its name there, and itself.

    The order is that of the `state_dict`; what is used twice comes twice.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{path}.{key}" if path else key, module, key, tensor


def _spectral_hooks(module: nn.Module) -> list[SpectralNorm]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]


def _vectors_of(hook: SpectralNorm) -> tuple[str, str]:
    return f"{hook.name}_u", f"{hook.name}_v"


class BufferPlaces:
    """The memory of a model's buffers, which a forward may leave by reassigning one.

    `self.mean = 0.9 * self.mean + 0.1 * batch_mean` makes another tensor the buffer, while averages
    and other forms of the model refer to the first one.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            (module._buffers, key, buffer, buffer.detach())
            for module in model.modules()
            for key, buffer in module._buffers.items()
            if buffer is not None
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Copy each reassigned buffer to where it was, and make that tensor the buffer again."""
        for owner, key, buffer, memory in self._places:
            live = owner[key]
            assert live is not None
            if live is buffer and live.data_ptr() == memory.data_ptr():
                continue
            memory.copy_(live)
            buffer.data = memory
            owner[key] = buffer
