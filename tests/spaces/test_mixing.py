"""Spaces over syncs and the mixing ratio."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import RandomSampler

from generalist_core.config import TrainConfig
from generalist_core.config.mixing import weights_of
from generalist_core.config.norms import with_norms
from generalist_core.config.presets import PRESETS, short
from spaces import mixing


def experts_of(n_experts: int) -> TrainConfig:
    norms = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
    robust = dict([*norms.items()][: n_experts - 1])
    return with_norms(short(epochs=24), robust)


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


@pytest.mark.parametrize("n_experts", [3, 4])
def test_the_ratio_of_more_experts_is_constant_and_then_linear_on_the_simplex(
    n_experts: int,
) -> None:
    base = experts_of(n_experts)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        config = mixing(trial, base)
        first, knot, last = (
            weights_of([trial.params[f"mixing.ratio.{end}_shares.{i}"] for i in range(n_experts)])
            for end in ("start", "start", "end")
        )
        assert config.mixing.ratio.values == (first, knot, last)
        before = [config.weights_at(epoch) for epoch in range(config.sync.start_epoch + 1)]
        assert all(weights == pytest.approx(first) for weights in before)


def test_no_expert_is_privileged() -> None:
    """The suggested ratios of another order of experts are those of this one in that order."""
    base = experts_of(3)
    trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    config = mixing(trial, base)
    for order in itertools.permutations(range(3)):
        renamed = {
            f"mixing.ratio.{end}_shares.{i}": trial.params[f"mixing.ratio.{end}_shares.{j}"]
            for end in ("start", "end")
            for i, j in enumerate(order)
        }
        other = mixing(optuna.trial.FixedTrial({**trial.params, **renamed}), base)
        for found, given in zip(other.mixing.ratio.values, config.mixing.ratio.values, strict=True):
            assert found == pytest.approx(tuple(given[j] for j in order))
