"""Optimizers; `lr` is the learning rate that the schedule scales."""

from __future__ import annotations

from dataclasses import dataclass

from generalist_core.config.fields import with_checked_fields
from generalist_core.validation import require, require_at_least, require_positive


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require(0 <= self.momentum < 1, "0 <= momentum < 1", f"momentum={self.momentum}")
        if self.nesterov:
            require(self.momentum > 0, "momentum > 0", "momentum=0 with nesterov=True")


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require_betas(self.beta1, self.beta2)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class Adam:
    """Adam (Kingma & Ba 2015); weight decay is added to the gradient."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require_betas(self.beta1, self.beta2)


@dataclass(frozen=True, kw_only=True)
@with_checked_fields
class RMSprop:
    """RMSprop (Tieleman & Hinton 2012), with momentum."""

    lr: float = 1e-3
    alpha: float = 0.99
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_optimizer(self.lr, self.weight_decay)
        require(0 <= self.alpha < 1, "0 <= alpha < 1", f"alpha={self.alpha}")
        require(0 <= self.momentum < 1, "0 <= momentum < 1", f"momentum={self.momentum}")


Optimizer = SGD | AdamW | Adam | RMSprop


def require_optimizer(lr: float, weight_decay: float) -> None:
    """Check the fields that all optimizers share."""
    require_positive("lr", lr)
    require_at_least("weight_decay", weight_decay, 0)


def require_betas(beta1: float, beta2: float) -> None:
    """Check Adam's decay rates."""
    require(0 <= beta1 < 1, "0 <= beta1 < 1", f"beta1={beta1}")
    require(0 <= beta2 < 1, "0 <= beta2 < 1", f"beta2={beta2}")
