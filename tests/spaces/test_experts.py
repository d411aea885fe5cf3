"""Spaces over each expert: conditional fields, and what stays as it is."""

from __future__ import annotations

import optuna
from optuna.samplers import RandomSampler

from generalist_core.config import PGD, CustomAttack, CustomLoss, CutMix
from generalist_core.config.presets import short
from spaces import SPACES, tasks
from tests.helpers.problems import with_expert


def test_conditional_fields_are_suggested_only_under_their_condition() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        trial = study.ask()
        SPACES["experts"](trial, short())
        kind = trial.params["experts.robust.optimizer"]
        fields = [name for name in trial.params if name.startswith("experts.robust.optimizer.")]
        assert fields
        assert all(name.startswith(f"experts.robust.optimizer.{kind}.") for name in fields)


def test_the_attack_fits_the_loss_that_is_suggested() -> None:
    """TRADES maximises its own divergence (Zhang et al. 2019), the other losses cross-entropy."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        attack = tasks(trial, short()).experts[1].attack
        assert isinstance(attack, PGD)
        loss = trial.params["experts.robust.loss"]
        assert attack.loss == ("kl" if loss == "TRADES" else "cross-entropy")
        seen.add(loss)
    assert seen == {"CrossEntropy", "TRADES", "MART"}


def test_an_expert_that_mixes_images_is_suggested_no_loss_that_needs_one_label() -> None:
    base = with_expert(short(), "robust", batch_augmentation=CutMix())
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    seen = {type(tasks(study.ask(), base).experts[1].loss).__name__ for _ in range(20)}
    assert seen == {"CrossEntropy", "TRADES"}


def test_custom_losses_and_attacks_are_kept() -> None:
    attack = CustomAttack(function="mine.py:attack", epsilon=0.1, forward_images=4)
    loss = CustomLoss(function="mine.py:loss")
    base = with_expert(short(), "robust", attack=attack, loss=loss)
    base = with_expert(base, "natural", loss=loss, label_smoothing=0.0)
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    assert tasks(trial, base) == base
    assert trial.params == {}
