"""Optimizers; `lr` is the learning rate that the schedule scales."""

from __future__ import annotations

from dataclasses import dataclass

from generalist_core.config.fields import BelowOne, NotNegative, Positive, with_checked_fields
from generalist_core.validation import require


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: Positive[float] = 0.1
    momentum: BelowOne = 0.9
    nesterov: bool = False
    weight_decay: NotNegative[float] = 5e-4

    def __post_init__(self) -> None:
        if self.nesterov:
            require(self.momentum > 0, "momentum > 0", "momentum=0 with nesterov=True")


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: Positive[float] = 1e-3
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    weight_decay: NotNegative[float] = 1e-2


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Adam:
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient."""

    lr: Positive[float] = 1e-3
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    weight_decay: NotNegative[float] = 0.0


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class RMSprop:
    """RMSprop (Tieleman & Hinton 2012), with momentum."""

    lr: Positive[float] = 1e-3
    alpha: BelowOne = 0.99
    momentum: BelowOne = 0.0
    weight_decay: NotNegative[float] = 0.0


Optimizer = SGD | AdamW | Adam | RMSprop
