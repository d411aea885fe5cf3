"""Warm-ups of single experts: trained ahead of the others, handed on, and adopted, to equal bits.

Before the first sync experts share nothing but their initial weights and the order of the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from generalist_core.training.abstract_trainer import AbstractTrainer, Metrics
from generalist_core.training.cost import update_cost
from generalist_core.training.warmup_keys import state_keys
from generalist_core.validation import InvalidConfigError


def warming(trainer: AbstractTrainer) -> list[str]:
    """The names of the experts that have epochs to train before the first sync."""
    start = trainer.config.sync.start_epoch
    return [expert.config.name for expert in trainer.experts if expert.epoch < start]


def train_warmup(trainer: AbstractTrainer, name: str) -> Metrics:
    """Train one expert alone for its next epoch before the first sync; as `train_epoch`.

    Raises:
        InvalidConfigError: the expert has no epoch to train before the first sync.
    """
    if name not in warming(trainer):
        raise InvalidConfigError(
            f"An expert that trains alone must have epochs left before the first sync, but {name!r}"
            " has none."
        )
    return trainer.train([trainer.expert(name)])


def warmup_keys(trainer: AbstractTrainer, name: str) -> tuple[str, ...]:
    """The keys of an expert's states after 0, 1, ..., `sync.start_epoch` epochs.

    They hold for the default batches and noises.
    """
    return state_keys(trainer.config, name, trainer.origin)


def warmup_state(trainer: AbstractTrainer, name: str) -> dict[str, Any]:
    """The state of an expert in its warm-up, for `adopt_warmup`; the tensors are the expert's own.

    Raises:
        InvalidConfigError: co-training has begun, or this expert has no warm-up.
    """
    if trainer.is_cotraining or name in trainer.discarded:
        raise InvalidConfigError(
            f"An expert must be in its warm-up to hand on its state, but {name!r} is not, at epoch "
            f"{trainer.epoch}."
        )
    state = trainer.expert(name).state_dict()
    del state["adopted_cost"]
    return {"expert": name, **state}


def adopt_warmup(trainer: AbstractTrainer, name: str, state: Mapping[str, Any]) -> None:
    """Put an expert in the `warmup_state` that another run with an equal key reached.

    Raises:
        InvalidConfigError: the state is another expert's, or of an epoch that this expert has
            passed or does not reach before the first sync.
    """
    expert, epoch, start = trainer.expert(name), state["epoch"], trainer.config.sync.start_epoch
    if state["expert"] != name:
        raise InvalidConfigError(
            f"The warm-up must be that of expert {name!r}, but got that of {state['expert']!r}."
        )
    if name not in warming(trainer) or not expert.epoch <= epoch <= start:
        raise InvalidConfigError(
            f"The warm-up must be of an epoch from {expert.epoch} to the first sync at {start}, "
            f"for an expert that is before it, but got epoch {epoch}."
        )
    costs = (update_cost(expert.settings.at(each)) for each in range(expert.epoch, epoch))
    expert.load_state_dict({**state, "adopted_cost": expert.adopted_cost + sum(costs)})
