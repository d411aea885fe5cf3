"""Models that hold what training changes anywhere but in averaged tensors are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from generalist_core.models.state import state_of
from generalist_core.models.state_check import require_sound_state, require_trainable
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import same_bits

SHAPE = (1, 4, 4)
Step = Callable[[nn.Module, Tensor], Tensor]


class Stepping(nn.Module):
    """A linear model whose input goes through a function of the model that may keep state."""

    def __init__(self, step: Step, **attributes: Any) -> None:
        super().__init__()
        self.linear, self.step = nn.Linear(16, 2), step
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(self.step(self, x).flatten(1)))


class NotRecomputing(Stepping):
    """Its derived buffer is there, but not the method that sets it."""

    derived_buffers = ("kept",)

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.register_buffer("kept", torch.ones(1))


def with_buffer(step: Step, value: Tensor) -> nn.Module:
    model = Stepping(step)
    model.register_buffer("kept", value)
    return model


def statistic(model: Any, x: Tensor) -> Tensor:
    if model.training:
        model.kept = 0.9 * model.kept + x.detach().mean()
    return cast(Tensor, x + model.kept)


def delayed(model: Any, x: Tensor) -> Tensor:
    """Another function from the thousandth step on."""
    if model.training:
        model.kept = model.kept + 1
    return 2 * x if model.kept > 1000 else x


def initialised_by_the_first_batch(model: Any, x: Tensor) -> Tensor:
    if not model.kept:
        model.kept.fill_(True)
        with torch.no_grad():
            model.linear.bias.copy_(x.mean().expand(2))
    return x


def counted(model: Any, x: Tensor) -> Tensor:
    model.kept = model.kept + 1
    return x


def remembered(model: Any, x: Tensor) -> Tensor:
    model.kept = x
    return x


def listed(model: Any, x: Tensor) -> Tensor:
    if model.training:
        model.kept.append(x.mean())
    return x + len(model.kept)


def replacing(model: Any, x: Tensor) -> Tensor:
    model.linear.weight = nn.Parameter(model.linear.weight * 2)
    return x


def making(model: Any, x: Tensor) -> Tensor:
    model.linear.register_buffer("made", x.mean())
    return x


class Extra(Stepping):
    def get_extra_state(self) -> int:
        return 1


REFUSED = {
    "attribute": (lambda: Stepping(statistic, kept=torch.zeros(())), "kept"),
    "number": (lambda: Stepping(statistic, kept=0.0), "kept"),
    "list": (lambda: Stepping(listed, kept=[]), "kept"),
    "counter": (lambda: Stepping(delayed, kept=0), "kept"),
    "integer buffer": (lambda: with_buffer(delayed, torch.tensor(0)), "kept"),
    "flag": (lambda: with_buffer(initialised_by_the_first_batch, torch.tensor(False)), "kept"),
    "infinite": (lambda: with_buffer(statistic_from_infinity, torch.tensor(torch.inf)), "kept"),
    "shape": (lambda: with_buffer(remembered, torch.zeros(1)), "kept"),
    "type": (lambda: with_buffer(statistic, torch.tensor(0)), "kept"),
    "parameter": (lambda: Stepping(replacing), r"linear\.weight"),
    "made": (lambda: Stepping(making), r"linear\.made"),
}

UNTRAINABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), r"1\.weight has none"),
    "extra": (lambda: nn.Sequential(Extra(counted, kept=0)), "0 has `get_extra_state`"),
    "meta": (lambda: Stepping(counted).to("meta"), r"linear\.weight is on the meta device"),
    "meta buffer": (lambda: with_buffer(counted, torch.ones(1, device="meta")), "kept is on"),
    "sparse": (lambda: with_buffer(counted, torch.eye(2).to_sparse()), "kept is torch.sparse_coo"),
    "expanded": (lambda: with_buffer(counted, torch.ones(1).expand(3)), "kept is expanded"),
    "derived, text": (lambda: Stepping(counted, derived_buffers="u"), "but got 'u' in Stepping"),
    "derived, number": (lambda: Stepping(counted, derived_buffers=1), "but got 1 in"),
    "derived, no buffer": (
        lambda: Stepping(counted, derived_buffers=("u",), recompute_derived_buffers=print),
        r"names of the module's own buffers.*\('u',\)",
    ),
    "derived, no method": (lambda: NotRecomputing(counted), "method `recompute_derived_buffers`"),
    "frozen": (lambda: Stepping(counted).requires_grad_(False), "gradient, but got 2 that do not"),
    "no parameters": (nn.Flatten, "gradient, but got 0 that do not"),
}


def statistic_from_infinity(model: Any, x: Tensor) -> Tensor:
    if model.training:
        model.kept = torch.minimum(model.kept, x.detach().min())
    return cast(Tensor, x - model.kept)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_named(name: str) -> None:
    build, says = REFUSED[name]
    with pytest.raises(InvalidConfigError, match=says):
        require_sound_state(build(), SHAPE)


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_what_cannot_be_trained_is_named(name: str) -> None:
    build, says = UNTRAINABLE[name]
    with pytest.raises(InvalidConfigError, match=says):
        require_trainable(build())
    require_trainable(Stepping(counted, kept=0))


def test_forwards_are_tried_without_gradients() -> None:
    def seen(_: Any, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return x

    require_sound_state(Stepping(seen), SHAPE)


ACCEPTED = {
    "buffer": lambda: with_buffer(statistic, torch.tensor(0.0)),
    "counter": lambda: Stepping(counted, kept=0),
    "counting buffer": lambda: with_buffer(counted, torch.tensor(0)),
    "features": lambda: Stepping(remembered, kept=torch.zeros(1)),
    "features at first": lambda: Stepping(remembered),
    "noise": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2)),
    "spectral norm": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 2))
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_models_that_are_their_state_pass_unchanged(name: str) -> None:
    model = ACCEPTED[name]()
    before, drawn = copy.deepcopy(state_of(model)), torch.get_rng_state()
    require_sound_state(model, SHAPE)
    assert same_bits(state_of(model), before)
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
