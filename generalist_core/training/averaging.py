"""Weights as flat lists of tensors: averages over time, mixtures over experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from generalist_core.config import MixingConfig
from generalist_core.models.state import averaged_tensors, recompute_derived
from generalist_core.recording.numbers import Number

Weights = list[Tensor]
"""The tensors of a model that are averaged, see `generalist_core.models.state`."""


def weights_of(model: nn.Module) -> Weights:
    """The model's own tensors, detached: writing to them changes the model."""
    return list(averaged_tensors(model).values())


def names_of(model: nn.Module) -> list[str]:
    """The name of each tensor of `weights_of`."""
    return list(averaged_tensors(model))


def named(model: nn.Module, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights by name, for `load_weights`."""
    return dict(zip(names_of(model), weights, strict=True))


@torch.no_grad()
def copy_weights(target: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Overwrite `target` with `weights`, tensor by tensor."""
    torch._foreach_copy_(list(target), list(weights))


def load_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `named` made; every name of the model must be there."""
    overwrite(model, [state[name] for name in names_of(model)])


def overwrite(model: nn.Module, weights: Sequence[Tensor]) -> None:
    """Give a model these weights, and recompute what follows from them."""
    copy_weights(weights_of(model), weights)
    recompute_derived(model)


@torch.no_grad()
def mix(weights: Sequence[Sequence[Tensor]], ratios: Sequence[Number]) -> Weights:
    """The mixture sum_i ratios[i] * weights[i] of one or more experts' weights.

    A ratio of 0 leaves its expert out, so weights that diverged there do no harm.
    """
    both = zip(weights, ratios, strict=True)
    pairs = [(w, r) for w, r in both if isinstance(r, Tensor) or r != 0]
    pairs = pairs or [(weights[0], 0.0)]
    total = torch._foreach_mul(list(pairs[0][0]), pairs[0][1])
    for tensors, ratio in pairs[1:]:
        if isinstance(ratio, Tensor):
            torch._foreach_add_(total, torch._foreach_mul(list(tensors), ratio))
        else:
            torch._foreach_add_(total, list(tensors), alpha=ratio)
    return list(total)


def all_finite(weights: Sequence[Tensor]) -> bool:
    """Whether no tensor contains infinity or NaN."""
    filled = [tensor for tensor in weights if tensor.numel()]
    return bool(torch.stack(torch._foreach_norm(filled, torch.inf)).isfinite().all())


class Average:
    """An exponential moving average of weights: `average <- d * average + (1 - d) * weights`.

    The decay d follows `MixingConfig.decay_at` of the number of updates so far.
    """

    def __init__(self, weights: Sequence[Tensor], config: MixingConfig) -> None:
        self.config = config
        self.weights: Weights = [tensor.clone() for tensor in weights]
        self.n_updates = 0

    def rates(self, n: int) -> list[float]:
        """The part 1 - d of the weights that each of the next `n` updates takes in."""
        return [1 - self.config.decay_at(self.n_updates + later) for later in range(n)]

    @torch.no_grad()
    def approach(self, weights: Sequence[Tensor], rate: Number) -> None:
        """Go this part of the way to `weights`, without counting."""
        if isinstance(rate, Tensor):
            way = torch._foreach_sub(list(weights), self.weights)
            torch._foreach_add_(self.weights, torch._foreach_mul(way, rate))
        else:
            torch._foreach_lerp_(self.weights, list(weights), rate)

    def restart(self, weights: Sequence[Tensor]) -> None:
        """Forget the past: the average becomes a copy of `weights`."""
        copy_weights(self.weights, weights)
        self.n_updates = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and numbers; the tensors are not copied."""
        return {"weights": self.weights, "n_updates": self.n_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        copy_weights(self.weights, state["weights"])
        self.n_updates = state["n_updates"]
