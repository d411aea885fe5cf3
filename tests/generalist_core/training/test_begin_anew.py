"""A trainer that begins another run in its place is a new one, to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import SGD, AdamW
from tests.helpers.problems import (
    RUNS,
    Counting,
    ratio,
    same_bits,
    start,
    synced,
    train_to,
    two_experts,
    with_expert,
)


@pytest.mark.parametrize("name", RUNS)
def test_the_next_run_is_that_of_a_new_trainer_to_the_bit(name: str) -> None:
    run = RUNS[name]
    trainer = train_to(start(dataclasses.replace(run, seed=7)), run.epochs)
    trainer.evaluate()
    assert trainer.begin_anew(run)
    new = train_to(start(run), run.epochs)
    train_to(trainer, run.epochs)
    assert trainer.release() == new.release()
    assert same_bits(trainer.state_dict(), new.state_dict())


OTHERS = {
    "averages, syncs and ratio": dataclasses.replace(
        synced(start_epoch=1, every_epochs=1), mixing=ratio(0.9, 0.1, decay=0.5)
    ),
    "another optimizer": with_expert(two_experts(), "robust", optimizer=AdamW()),
    "more momentum": with_expert(two_experts(), "robust", optimizer=SGD(momentum=0.5)),
    "no momentum": with_expert(two_experts(), "robust", optimizer=SGD(momentum=0.0)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_so_is_that_of_other_settings(name: str) -> None:
    run = OTHERS[name]
    trainer = train_to(start(two_experts()), 5)
    assert trainer.begin_anew(run)
    new = train_to(start(run), 5)
    assert same_bits(train_to(trainer, 5).averages(), new.averages())
    assert same_bits(trainer.global_learner, new.global_learner)


class Permuted(nn.Module):
    """It reads the pixels in an order that is drawn when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.register_buffer("order", torch.randperm(16))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1)[:, self.order])
        return logits


def test_what_is_not_averaged_is_that_of_the_run_also_where_learners_are_judged() -> None:
    def model(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        return Permuted()

    run = two_experts()
    trainer = train_to(start(dataclasses.replace(run, seed=7), model=model), run.epochs)
    assert trainer.begin_anew(run)
    new = train_to(start(run, model=model), run.epochs)
    assert train_to(trainer, run.epochs).release() == new.release()
    assert same_bits(trainer.state_dict(), new.state_dict())


def test_a_model_of_another_architecture_needs_a_new_trainer() -> None:
    """As a factory may make one that draws its width."""
    widths = iter([4, 8])

    def model(n_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        width = next(widths)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, n_classes))

    assert not start(two_experts(), model=model).begin_anew(two_experts(seed=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 4},
        {"n_accumulations": 2},
        {"precision": "float64"},
        {"fold_batchnorm": True},
        {"cuda_graph": True},
    ],
    ids=str,
)
def test_a_run_on_another_machine_needs_a_new_trainer(changes: dict[str, Any]) -> None:
    trainer = start(two_experts())
    state = trainer.state_dict()
    assert not trainer.begin_anew(dataclasses.replace(two_experts(), **changes))
    assert trainer.state_dict()["config"] == state["config"]


def test_a_model_that_holds_more_than_tensors_needs_a_new_trainer() -> None:
    """Its experts would go on counting where they were."""
    trainer = start(
        two_experts(), model=lambda *_: Counting(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    )
    train_to(trainer, 2)
    assert not trainer.begin_anew(two_experts())
