"""Optimizers against their textbook updates on a quadratic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from generalist_core.config import SGD, Adam, AdamW, Optimizer, RMSprop
from generalist_core.training.optimizers import build_optimizer


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
