"""Spaces with lineages: what their branches share, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import get_args

import optuna
import pytest

from generalist_core.config import FGSM, ExpertConfig, SeveralAttacks, TrainConfig
from generalist_core.config.attacks import Combine
from generalist_core.config.norms import with_combined_norms, with_norms
from generalist_core.config.presets import generalist_plus_plus, paper, short
from generalist_core.training.warmup_keys import Origin, discarded_warmups, state_keys
from generalist_core.validation import InvalidConfigError
from search.scheduling.branching import epochs_for
from search.study.samplers import fixing
from spaces import SPACES
from spaces.lineages import LINEAGE, WithLength, as_lineage, lineage_params, robust_of
from spaces.protocol import configuration_of
from tests.helpers.problems import with_expert

ORIGIN = Origin(data="d", model="m", n_batches=7, device_kind="cpu", precision="float32")
NAMES = ("branches", "lineages")
RANDOM = optuna.samplers.RandomSampler(seed=0)


def suggested(space: str, base: TrainConfig, n: int) -> list[tuple[dict[str, object], TrainConfig]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(n):
        trial = study.ask()
        config = configuration_of(SPACES[space], trial, base)
        found.append((dict(trial.params), config))
    return found


def keys(config: TrainConfig) -> tuple[str, ...]:
    return state_keys(config, robust_of(config).name, ORIGIN)


@pytest.mark.parametrize("space", NAMES)
@pytest.mark.parametrize("preset", [short, paper])
def test_every_suggestion_is_a_short_branch_of_a_robust_warm_up(space: str, preset: object) -> None:
    base = preset()  # type: ignore[operator]
    for params, config in suggested(space, base, 60):
        assert 1 <= config.cotraining_epochs == params["cotraining_epochs"] <= 6
        assert discarded_warmups(config) == {"natural"}
        assert config.sync.is_sync(config.sync.start_epoch)
        assert config.weights_at(config.sync.start_epoch) == (0.0, 1.0)
        assert config.evaluation.release == "last"
        assert not config.evaluation.release_global


@pytest.mark.parametrize("length", range(1, 7))
def test_the_natural_warm_up_is_discarded_at_any_length(length: int) -> None:
    """Progress is a quotient, which rounding must not carry past the first sync."""
    base = short()
    for start in (*range(1, 60), 97, 333, 1000):
        config = as_lineage(base, start, start + length)
        assert discarded_warmups(config) == {"natural"}
        robust = robust_of(config)
        rates = {robust.schedule((start - 1 + step / 9) / config.epochs) for step in range(9)}
        assert rates == {1.0}


@pytest.mark.parametrize("space", NAMES)
def test_the_branches_of_a_lineage_share_its_keys_up_to_the_shorter_one(space: str) -> None:
    """Whatever begins at the first sync; and other lineages share none."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    lineages = []
    for _ in range(5):
        trial = study.ask()
        first = configuration_of(SPACES[space], trial, short())
        fixed = lineage_params(trial.params, first)
        sampler = fixing(optuna.samplers.RandomSampler(seed=2), fixed)
        others = optuna.create_study(sampler=sampler)
        branches = [SPACES[space](others.ask(), short()) for _ in range(6)]
        assert len({branch.sync.start_epoch for branch in branches}) > 1
        assert {branch.experts[1].rests for branch in branches} == {True, False}
        for branch in branches:
            n = 1 + min(first.sync.start_epoch, branch.sync.start_epoch)
            assert keys(branch)[:n] == keys(first)[:n]
        lineages.append((fixed, keys(first)[1]))
    assert len({key for _, key in lineages}) == len({str(params) for params, _ in lineages}) > 2


def test_an_attack_without_steps_has_one_lineage() -> None:
    base = with_expert(short(), "robust", attack=FGSM(epsilon=0.1))
    found = suggested("branches", base, 9)
    assert {config.experts[1].attack for _, config in found} == {FGSM(epsilon=0.1)}
    assert {str(lineage_params(params, config)) for params, config in found} == {"{}"}


@pytest.mark.parametrize("space", NAMES)
@pytest.mark.parametrize("combine", get_args(Combine))
def test_a_lineage_on_several_attacks_has_as_many_steps_of_each(
    space: str, combine: Combine
) -> None:
    base = with_combined_norms(short(), {"linf": 0.1, "l2": 0.5}, combine)
    found = suggested(space, base, 30)
    assert len({params["experts.robust.attack.parts.0.steps"] for params, _ in found}) > 5
    for params, config in found:
        attack = config.experts[1].attack
        assert isinstance(attack, SeveralAttacks)
        assert attack.combine == combine
        assert [(part.norm, part.epsilon) for part in attack.parts] == [("linf", 0.1), ("l2", 0.5)]
        for part in attack.parts:
            assert part.steps == params["experts.robust.attack.parts.0.steps"]
            assert part.steps * part.relative_step_size >= 2
            assert part.relative_step_size >= 0.25


@pytest.mark.parametrize("space", NAMES)
def test_one_of_several_robust_experts_is_the_lineage_and_the_others_begin_as_it(
    space: str,
) -> None:
    base = generalist_plus_plus("natural", "linf", "l2")
    names = {expert.name for expert in base.experts}
    found = suggested(space, base, 60)
    assert {params[LINEAGE] for params, _ in found} == {"linf", "l2"}
    for params, config in found:
        lineage = str(params[LINEAGE])
        assert config.lineage == robust_of(config).name == lineage
        assert discarded_warmups(config) == names - {lineage}
        assert [expert.name for expert in config.experts if expert.rests] in ([], [lineage])
        assert {f"experts.{name}.optimizer.lr" for name in names - {lineage}} <= set(params)
        shared = lineage_params(params, config)
        assert LINEAGE in shared
        assert not any(f"experts.{name}." in path for name in names - {lineage} for path in shared)
    ends = {config.mixing.ratio.values[2] for _, config in found if not any_rests(config)}
    assert len(ends) > 10
    assert all(min(end) > 0 for end in ends if isinstance(end, tuple))


@pytest.mark.parametrize("space", NAMES)
@pytest.mark.parametrize("combine", [None, *get_args(Combine)])
def test_a_lineage_of_any_attack_has_the_epochs_that_its_own_cost_allows(
    space: str, combine: Combine | None
) -> None:
    """So they are asked for when its settings are known."""
    radii, study = {"linf": 0.1, "l2": 0.5}, optuna.create_study(sampler=RANDOM)
    base = with_combined_norms(short(), radii, combine) if combine else with_norms(short(), radii)
    starts = set()
    for _ in range(20):
        trial = WithLength(study.ask(), base, partial(epochs_for, 200.0))
        config = configuration_of(SPACES[space], trial, base)
        assert config.sync.start_epoch == epochs_for(200.0, robust_of(config))
        starts.add(config.sync.start_epoch)
    assert len(starts) > 3


def any_rests(config: TrainConfig) -> bool:
    return any(expert.rests for expert in config.experts)


def test_the_order_of_experts_says_nothing() -> None:
    swapped = dataclasses.replace(short(), experts=short().experts[::-1])
    for space in NAMES:
        for _, config in suggested(space, swapped, 20):
            assert discarded_warmups(config) == {"natural"}
            assert config.weights_at(0) == (1.0, 0.0)


def test_experts_without_a_robust_one_are_refused() -> None:
    twice = dataclasses.replace(short(), experts=(short().experts[0], ExpertConfig(name="second")))
    for space in NAMES:
        with pytest.raises(InvalidConfigError, match=r"have a robust expert.*second.*`full`"):
            suggested(space, twice, 1)
