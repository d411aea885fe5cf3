"""Trials as Optuna stores them, and the goals of a sweep."""

from __future__ import annotations

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from generalist_core.config import TrainConfig
from generalist_core.config.presets import short
from search.config import Floor
from search.errors import SweepFolderError
from search.study.failures import Failure
from search.study.ledger import Ledger
from search.study.samplers import build_samplers
from search.study.trials import Goals, as_of, missing_siblings, name_of, observations_of
from spaces import SPACES, Trial, tune_float
from tests.helpers.ledgers import COST, PLANTED, new_ledger, release
from tests.helpers.points import OBJECTIVES


def level(trial: Trial, base: TrainConfig) -> TrainConfig:
    """A space of one number."""
    return tune_float(trial, base, "mixing.decay", 0.0, 0.99)


def test_floors_set_the_reference_and_constrain_the_sampler() -> None:
    ledger = Ledger(
        InMemoryStorage(),
        OBJECTIVES,
        sampler_of=build_samplers("tpe", seed=0, n_startup=4),
        floors=[Floor(objective="natural", accuracy=0.95)],
    )
    proposal = ledger.ask(level, short())
    points = release(proposal)
    ledger.tell_released(proposal.trial, points, COST)
    feasible = [trial for trial in ledger.study.get_trials() if trial.constraints["natural"] <= 0]
    assert len(feasible) == sum(point.accuracies["natural"] >= 0.95 for point in points)
    assert ledger.results.front().reference == (0.95, 0.0)
    assert ledger.results.front().hypervolume == pytest.approx((1 - 0.95) * 0.5)


def test_goals_without_floors_count_from_the_origin() -> None:
    goals = Goals(objectives=OBJECTIVES)
    assert goals.reference == (0.0, 0.0)
    assert goals.violations({"natural": 0.5, "robust": 0.5}) == {}


def test_a_floor_is_violated_by_what_is_missing() -> None:
    goals = Goals(objectives=OBJECTIVES, floors=(Floor(objective="robust", accuracy=0.5),))
    assert goals.reference == (0.0, 0.5)
    violations = [goals.violations({"natural": 0.0, "robust": r})["robust"] for r in (0.25, 0.75)]
    assert violations == [0.25, -0.25]


def test_only_trials_that_were_asked_have_a_name() -> None:
    asked = create_trial(state=TrialState.RUNNING, user_attrs={"trial": "0001"})
    sibling = create_trial(state=TrialState.RUNNING, user_attrs={"trial": "0001", "sibling": True})
    observation = create_trial(state=TrialState.RUNNING, user_attrs={"origin": "elsewhere"})
    assert [name_of(trial) for trial in (asked, sibling, observation)] == ["0001", None, None]


@pytest.mark.parametrize("name", ["../0001", "", 1])
def test_a_name_that_no_sweep_gives_is_refused(name: object) -> None:
    foreign = create_trial(state=TrialState.RUNNING, user_attrs={"trial": name})
    with pytest.raises(SweepFolderError, match="must be a number, but the study has"):
        name_of(foreign)


def test_the_siblings_that_are_missing_are_those_that_no_later_trial_is() -> None:
    ledger = new_ledger()
    proposal = ledger.ask(SPACES["mixing"], short())
    points = release(proposal)
    ledger.tell_released(proposal.trial, points, COST)
    asked, *siblings = ledger.study.get_trials()
    assert missing_siblings(asked, siblings, ledger.goals) == []
    missing = missing_siblings(asked, siblings[1:], ledger.goals)
    assert [trial.user_attrs for trial in missing] == [siblings[0].user_attrs]
    assert len(missing_siblings(asked, [], ledger.goals)) == len(points) - 1


def test_a_trial_that_was_told_later_runs_as_of_then() -> None:
    ledger = new_ledger()
    first, second = (ledger.ask(SPACES["smoke"], short()) for _ in range(2))
    ledger.tell_failed(second.trial, PLANTED)
    ledger.tell_failed(first.trial, PLANTED)
    trial = ledger.study.get_trials()[0]
    assert as_of(trial, 2) == trial
    then = as_of(trial, 1)
    assert (then.state, then.params) == (TrialState.RUNNING, trial.params)
    assert set(then.user_attrs) == {"trial", "asked_after", "config", "mixing_ratio"}


def test_the_sampler_sees_zeros_for_lasting_failures_and_nothing_of_others() -> None:
    ledger = new_ledger()
    lasting, lost = (ledger.ask(SPACES["smoke"], short()) for _ in range(2))
    ledger.tell_failed(lasting.trial, PLANTED)
    ledger.tell_failed(lost.trial, Failure(kind="worker-died", reason="planted"))
    (seen,) = observations_of(ledger.study.get_trials(), ledger.goals)
    assert (seen.values, seen.params) == ([0.0, 0.0], lasting.params)


def test_growth_adds_up_costs_and_hypervolume_in_the_order_of_ends() -> None:
    ledger = new_ledger()
    proposals = [ledger.ask(SPACES["smoke"], short()) for _ in range(3)]
    ledger.tell_failed(proposals[2].trial, PLANTED, COST)
    for proposal in proposals[:2]:
        ledger.tell_released(proposal.trial, release(proposal), COST)
    history = ledger.results.history()
    assert [growth.trial for growth in history] == ["0002", "0000", "0001"]
    assert [growth.forward_images for growth in history] == [10, 20, 30]
    assert history[0].hypervolume == 0
    assert history[1].hypervolume == history[2].hypervolume == ledger.results.front().hypervolume
    assert all(growth.elapsed_s >= 0 for growth in history)
