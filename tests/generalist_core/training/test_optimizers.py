"""Optimizers against their textbook updates on a quadratic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from generalist_core.config import SGD, Adam, AdamW, Optimizer, RMSprop
from generalist_core.training.optimizers import build_optimizer, decay_weights, load_optimizer


def sgd(config: SGD, p: float, gradient: float, state: dict[str, float]) -> float:
    gradient += config.weight_decay * p
    velocity = state["velocity"] = (
        config.momentum * state["velocity"] + gradient if "velocity" in state else gradient
    )
    step = gradient + config.momentum * velocity if config.nesterov else velocity
    return p - config.lr * step


def adam(config: Adam | AdamW, p: float, gradient: float, state: dict[str, float]) -> float:
    if isinstance(config, AdamW):
        p -= config.lr * config.weight_decay * p
    else:
        gradient += config.weight_decay * p
    t = state["t"] = state.get("t", 0) + 1
    mean = state["mean"] = config.beta1 * state.get("mean", 0) + (1 - config.beta1) * gradient
    square = state["square"] = (
        config.beta2 * state.get("square", 0) + (1 - config.beta2) * gradient**2
    )
    mean, square = mean / (1 - config.beta1**t), square / (1 - config.beta2**t)
    return p - config.lr * mean / (square**0.5 + 1e-8)


def rmsprop(config: RMSprop, p: float, gradient: float, state: dict[str, float]) -> float:
    gradient += config.weight_decay * p
    square = state["square"] = (
        config.alpha * state.get("square", 0) + (1 - config.alpha) * gradient**2
    )
    step = gradient / (square**0.5 + 1e-8)
    velocity = state["velocity"] = config.momentum * state.get("velocity", 0) + step
    return p - config.lr * velocity


CASES: list[tuple[Any, Optimizer]] = [
    (sgd, SGD(lr=0.1, momentum=0.0, weight_decay=0.0)),
    (sgd, SGD(lr=0.1, momentum=0.8, weight_decay=0.01)),
    (sgd, SGD(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01)),
    (adam, Adam(lr=0.1, beta1=0.8, beta2=0.95, weight_decay=0.1)),
    (adam, AdamW(lr=0.1, beta1=0.8, beta2=0.95, weight_decay=0.1)),
    (rmsprop, RMSprop(lr=0.1, alpha=0.9, momentum=0.5, weight_decay=0.1)),
]


def trajectory(config: Optimizer) -> Iterator[float]:
    parameter = nn.Parameter(torch.tensor([2.0]).double())
    optimizer = build_optimizer(config, iter([parameter]))
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward((parameter**2).sum() / 2 + parameter.sum())
        optimizer.step()
        yield parameter.item()


@pytest.mark.parametrize(
    ("update", "config"), CASES, ids=lambda case: getattr(case, "__name__", str(case))
)
def test_updates_are_the_textbooks(update: Any, config: Optimizer) -> None:
    p, state = 2.0, {}
    for found in trajectory(config):
        p = update(config, p, p + 1, state)
        assert found == pytest.approx(p, rel=1e-9)


def stepped(config: Optimizer, n_steps: int, *, by_tensor: bool = False) -> nn.Parameter:
    """A parameter after steps, the weight decay of which may be made by a tensor."""
    parameters = [nn.Parameter(torch.tensor([2.0, -1.0]).double()), nn.Parameter(torch.ones(1))]
    optimizer = build_optimizer(config, parameters)
    for _ in range(n_steps):
        parameters[0].grad = parameters[0].detach() - 1
        if by_tensor:
            optimizer.param_groups[0]["weight_decay"] = 0.0
            decay_weights(optimizer, torch.tensor(config.lr), torch.tensor(config.weight_decay))
        optimizer.step()
    assert parameters[1].item() == 1.0, "without a gradient nothing decays"
    return parameters[0]


@pytest.mark.parametrize("config", [config for _, config in CASES], ids=str)
def test_weights_decay_by_a_tensor_as_by_a_number(config: Optimizer) -> None:
    torch.testing.assert_close(
        stepped(config, 4, by_tensor=True), stepped(config, 4), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("config", [config for _, config in CASES[1:]], ids=str)
def test_a_state_is_loaded_into_the_tensors_that_are_there(config: Optimizer) -> None:
    optimizers = []
    for n_steps in (2, 3):
        parameter = nn.Parameter(torch.tensor([2.0]))
        optimizers.append(build_optimizer(config, [parameter]))
        for _ in range(n_steps):
            parameter.grad = parameter.detach().clone()
            optimizers[-1].step()
    source, target = optimizers
    (held,) = target.state.values()
    places = {name: value.data_ptr() for name, value in held.items()}
    load_optimizer(target, source.state_dict())
    (loaded,) = target.state.values()
    (expected,) = source.state.values()
    assert {name: value.data_ptr() for name, value in loaded.items()} == places
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert all(value.data_ptr() != expected[name].data_ptr() for name, value in loaded.items())


@pytest.mark.parametrize("config", [config for _, config in CASES], ids=str)
def test_a_parameter_whose_gradients_come_late_is_trained_as_if_alone(config: Optimizer) -> None:
    first, late = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([3.0]))
    alone = nn.Parameter(late.detach().clone())
    both, single = build_optimizer(config, [first, late]), build_optimizer(config, [alone])
    for n in range(4):
        first.grad = first.detach().clone()
        if n >= 2:
            late.grad, alone.grad = late.detach().clone(), alone.detach().clone()
            single.step()
        both.step()
    assert torch.equal(late, alone)
    assert late.item() != 3.0
