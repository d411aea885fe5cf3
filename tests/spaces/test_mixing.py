"""Spaces over syncs and the mixing ratio."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import RandomSampler

from generalist_core.config import TrainConfig
from generalist_core.config.presets import PRESETS, short
from spaces import mixing
from tests.helpers.problems import three_experts


def test_the_ratio_is_constant_up_to_the_first_sync() -> None:
    """Warm-ups therefore do not depend on the knot or the end, and can be shared."""
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    for _ in range(30):
        config = mixing(study.ask(), short(epochs=24))
        before = [config.weights_at(epoch) for epoch in range(config.sync.start_epoch + 1)]
        assert len(set(before)) == 1


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_long_runs_may_sync_first_in_their_last_epoch(preset: Callable[..., TrainConfig]) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    study.enqueue_trial({"sync.start_epoch": 239})
    config = mixing(study.ask(), preset(epochs=240))
    assert config.sync.start_epoch == 239
    assert len({config.weights_at(epoch) for epoch in range(239)}) == 1


def test_more_than_two_experts_keep_their_ratio() -> None:
    base = three_experts(epochs=12)
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    assert mixing(trial, base).mixing == base.mixing
    assert trial.params.keys() == {"sync.start_epoch", "sync.every_epochs"}
