"""One base learner."""

from __future__ import annotations

from dataclasses import dataclass, field

from generalist_core.config.attacks import Attack
from generalist_core.config.losses import CrossEntropy, CutMix, Loss, MixUp, OwnLoss
from generalist_core.config.optimizers import SGD, Optimizer
from generalist_core.schedules import Constant, Schedule
from generalist_core.validation import require


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """One base learner: its task (natural images, or an attack), loss, optimizer and schedule."""

    name: str
    attack: Attack | None = None
    loss: Loss = field(default_factory=CrossEntropy)
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Constant)
    label_smoothing: float = 0.0
    mix: MixUp | CutMix | None = None

    def __post_init__(self) -> None:
        fits = self.name.isidentifier() and self.name != "global"
        law = "an expert's name is an identifier other than 'global'"
        require(fits, law, f"name={self.name!r}")
        require(
            0 <= self.label_smoothing < 1,
            "0 <= label_smoothing < 1",
            f"label_smoothing={self.label_smoothing}",
        )
        if isinstance(self.loss, OwnLoss):
            smooths = self.label_smoothing > 0
            got = f"label_smoothing={self.label_smoothing} for expert {self.name!r}"
            require(
                not smooths, "no label smoothing beside an own loss", got, "Smooth in the loss."
            )
        if self.attack is None:
            plain = isinstance(self.loss, CrossEntropy | OwnLoss)
            require(plain, "an attack for TRADES and MART", f"attack=None for expert {self.name!r}")
        else:
            cure = "Mixing images is for natural experts."
            require(self.mix is None, "no mix with an attack", f"mix={self.mix}", cure)
