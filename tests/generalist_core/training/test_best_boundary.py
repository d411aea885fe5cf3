"""The boundary that mixtures are released from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from generalist_core.config import TrainConfig
from generalist_core.config.mixing import GLOBAL
from generalist_core.training.averaging import Weights
from generalist_core.training.best_boundary import BestBoundary
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import same_bits, tiny_dataset, two_experts

N_IMAGES = 10_000
"""With this many images, a standard error is at most 0.005."""


def best_epoch(hypervolumes: Sequence[float], n_images: int = N_IMAGES) -> int:
    best = BestBoundary()
    for epoch, hypervolume in enumerate(hypervolumes, start=1):
        accuracies = {"natural": 0.5, "robust": hypervolume / 0.5}
        best.see(epoch, accuracies, n_images, [[torch.tensor([float(epoch)])]])
    assert best.averages[0][0].item() == best.epoch
    return best.epoch


@pytest.mark.parametrize(
    ("hypervolumes", "epoch"),
    [
        ([0.3], 1),
        ([0.1, 0.2, 0.3], 3),
        ([0.1, 0.3, 0.2], 2),  # overfits
        ([0.3, 0.2, 0.1], 1),
        ([0.3, 0.3], 2),
        ([0.3, 0.296], 2),  # within the noise
        ([0.3, 0.294], 1),
        ([0.3, 0.296, 0.292], 2),  # small losses do not add up unseen
    ],
)
def test_the_last_boundary_counts_unless_an_earlier_was_better(
    hypervolumes: list[float], epoch: int
) -> None:
    assert best_epoch(hypervolumes) == epoch


def test_fewer_images_leave_more_room_for_noise() -> None:
    assert [best_epoch([0.3, 0.25], n) for n in (25, 100, 101, 10_000)] == [2, 2, 1, 1]


def test_it_keeps_copies() -> None:
    weights: Weights = [torch.zeros(2)]
    best = BestBoundary()
    best.see(1, {"natural": 0.5}, N_IMAGES, [weights], weights)
    weights[0] += 1
    assert best.averages[0][0].tolist() == [0, 0]
    assert best.global_learner is not None
    assert best.global_learner[0].tolist() == [0, 0]


BEST = 4
"""The epoch at which the global learner looks best."""


def overfitting(config: TrainConfig) -> GeneralistTrainer:
    """A trainer whose global learner looks worse after `BEST`."""
    trainer = GeneralistTrainer(config, tiny_dataset())
    judge = trainer.judge

    def judge_global_by_epoch(learner: str, *, attacked: bool) -> Mapping[str, float]:
        accuracies = judge(learner, attacked=attacked)
        if learner != "global":
            return accuracies
        return dict.fromkeys(accuracies, 0.9 if trainer.epoch == BEST else 0.1)

    trainer.judge = judge_global_by_epoch
    return trainer


def trained(config: TrainConfig, *, halt: bool = False) -> GeneralistTrainer:
    trainer = overfitting(config)
    while not trainer.is_done:
        trainer.train_epoch()
        trainer.evaluate()
        if halt:
            state: dict[str, Any] = trainer.state_dict()
            trainer = overfitting(config)
            trainer.load_state_dict(state)
    return trainer


def judged(trainer: GeneralistTrainer) -> list[tuple[float, int]]:
    points = trainer.release([0.0, 0.5, GLOBAL])
    return [(point.accuracies["robust"], point.epoch) for point in points]


def test_an_overfitted_training_releases_its_best_boundary() -> None:
    """What it releases is bit for bit what a training that ends there would."""
    config = two_experts(epochs=6)
    trainer = trained(config)
    until = GeneralistTrainer(config, tiny_dataset())
    for _ in range(BEST):
        until.train_epoch()
    assert trainer.release_epoch == BEST
    assert list(trainer.averages()) == ["natural", "robust", GLOBAL]
    assert same_bits(trainer.averages(), until.averages())
    assert not same_bits(trainer.released(GLOBAL), trainer.global_learner)
    assert judged(trainer) == judged(until)
    assert {epoch for _, epoch in judged(trainer)} == {BEST}


def test_a_stopped_training_that_goes_on_still_knows_it() -> None:
    whole, halting = (trained(two_experts(epochs=6), halt=halt) for halt in (False, True))
    assert halting.release_epoch == whole.release_epoch == BEST
    assert same_bits(halting.averages(), whole.averages())


def test_a_checkpoint_without_the_best_global_learner_releases_the_mixtures_alone() -> None:
    """Those of versions that released no global learner are such."""
    trainer = trained(two_experts(epochs=6))
    expected, state = trainer.release()[:-1], trainer.state_dict()
    del state["best"]["global_learner"]
    later = overfitting(trainer.config)
    later.load_state_dict(state)
    assert later.release() == expected
    assert list(later.averages()) == ["natural", "robust"]


def test_by_request_the_last_epoch_counts() -> None:
    config = two_experts(epochs=6)
    last = dataclasses.replace(config.evaluation, release="last")
    trainer = trained(dataclasses.replace(config, evaluation=last))
    assert {epoch for _, epoch in judged(trainer)} == {6}


def test_what_was_trained_after_the_last_evaluation_counts() -> None:
    trainer = overfitting(two_experts(epochs=6))
    while not trainer.is_done:
        trainer.train_epoch()
        if trainer.epoch <= BEST:
            trainer.evaluate()
    assert trainer.release_epoch == 6
