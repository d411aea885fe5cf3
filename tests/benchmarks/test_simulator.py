"""Simulated trainings: their metrics, costs and accuracies."""

from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from scipy.stats import spearmanr

from benchmarks.simulator import SimulatedTrainer, WarmupsInMemory, World
from generalist_core.config import Ratio
from generalist_core.config.codec import replace_at
from generalist_core.config.presets import short
from generalist_core.training.trainer import GeneralistTrainer
from search.running.trial import Training
from spaces import SPACES
from tests import ROOT
from tests.helpers.problems import RUNS, tiny_dataset

WORLD = World()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("every_epochs", [1, 2, 5])
@pytest.mark.parametrize("name", ["paper", "adamw, trades", "synced from the start"])
def test_a_simulated_epoch_is_named_and_costs_as_a_real_one(
    name: str, every_epochs: int, shares: bool
) -> None:
    """On 16 images per epoch, and 12 for validation, of which 5 are used during training."""
    config = replace_at(RUNS[name], "evaluation.every_epochs", every_epochs)
    config = replace_at(config, "evaluation.n_images_during_training", 5)
    trainers = (
        GeneralistTrainer(config, tiny_dataset()),
        SimulatedTrainer(config, World(n_train=16, n_validation=12)),
    )
    real, simulated = (Training(t, WarmupsInMemory() if shares else None) for t in trainers)
    while not real.is_done:
        expected, found = real.attempt(), simulated.attempt()
        assert set(found) == set(expected)
        for key in ("epoch", "forward_images", "reused_forward_images"):
            assert found[key] == expected[key]
    assert simulated.is_done
    for training in (real, simulated):
        training.trainer.release([0.2, 0.7])
    assert trainers[0].forward_images == trainers[1].forward_images


RATIOS: tuple[Ratio, ...] = (0.0, 0.1, 0.5, (0.2, 0.8), 1.0)


@pytest.mark.parametrize("space", SPACES)
def test_accuracies_are_fractions_for_all_that_a_space_suggests(space: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for _ in range(20):
        trainer = SimulatedTrainer(SPACES[space](study.ask(), short()), WORLD)
        while not trainer.is_done:
            found = [trainer.true_accuracies(ratio) for ratio in RATIOS]
            assert all(0 <= value <= 1 for values in found for value in values)
            trainer.train_epoch()
        for point in trainer.release():
            assert all(0 <= value <= 1 for value in point.accuracies.values())


def test_what_is_seen_scatters_about_what_is_true() -> None:
    """Within ten standard deviations of what a million images show."""
    trainer = SimulatedTrainer(short(), World(n_validation=10**6))
    while not trainer.is_done:
        trainer.train_epoch()
    for ratio in RATIOS:
        (point,) = trainer.release([ratio])
        assert list(point.accuracies.values()) == pytest.approx(
            trainer.true_accuracies(ratio), abs=5e-3
        )


def test_simulated_accuracies_are_near_recorded_ones() -> None:
    """36 random configurations of `full` and `mixing`, trained on the digits from `short`, seed 0.

    Their mixtures were judged on 500 validation images, whose standard error is 0.02.
    """
    rows = json.loads((ROOT / "tests/data/recorded_digits.json").read_text())
    recorded, simulated = [], []
    for row in rows:
        config = SPACES[row["space"]](optuna.trial.FixedTrial(row["params"]), short())
        for ratio, *accuracies in row["released"]:
            recorded.append(accuracies)
            simulated.append(WORLD.mixed(config, ratio, config.epochs))
    errors = np.abs(np.array(simulated) - recorded)
    assert errors.shape == (180, 2)
    assert (np.median(errors, 0) < [0.02, 0.04]).all()
    assert (np.quantile(errors, 0.9, 0) < [0.12, 0.15]).all()
    assert spearmanr(np.array(simulated)[:, 1], np.array(recorded)[:, 1]).statistic > 0.9
