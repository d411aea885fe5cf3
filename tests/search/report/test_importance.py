"""The importance of parameters, over trials with a planted effect."""

from __future__ import annotations

import pytest

from generalist_core.config.presets import short
from search.report.importance import FRONT, N_REQUIRED, best_of, importances, nearness
from tests.helpers.reports import COST, IDLE, PLANTED, RARE, TWO, ledger_of, space


def test_the_planted_parameter_matters_most_for_everything() -> None:
    found = importances(ledger_of(60).results)
    assert [one.target for one in found] == [FRONT, "natural accuracy", "robust accuracy"]
    for one in found:
        assert one.refusal is None
        assert one.n_trials == 60
        assert max(one.fractions, key=lambda name: one.fractions[name]) == PLANTED
        assert one.fractions[PLANTED] > 0.8
        assert sum(one.fractions.values()) == pytest.approx(1)
        assert set(one.fractions) == {PLANTED, IDLE, RARE, "sync.how"}
        assert 0 < one.n_with[RARE] < one.n_with["sync.how"] == 60


def test_too_few_trainings_have_no_importance() -> None:
    for one in importances(ledger_of(N_REQUIRED - 1).results):
        assert one.fractions == {}
        assert one.refusal == "at least 20 trainings must count, but got 19"


def test_stopped_trials_count_as_far_from_the_front() -> None:
    ledger = ledger_of(10)
    for _ in range(20):
        ledger.tell_stopped(ledger.ask(space, short()).trial, 2, COST, {})
    front, *others = importances(ledger.results)
    assert (front.n_trials, others[0].n_trials) == (30, 10)
    assert front.n_best == 8
    assert others[0].refusal is not None


def test_the_best_are_a_quarter_with_its_ties_but_never_all() -> None:
    assert best_of([4, 3, 2, 1]) == [True, False, False, False]
    assert best_of([3, 3, 2, 1]) == [True, True, False, False]
    assert best_of([2, 1, 1, 1, 1, 1, 1, 1]) == [True] + [False] * 7
    assert best_of([1, 1, 1]) == [False] * 3
    assert best_of([]) == []


def test_a_trial_is_as_near_the_front_as_its_best_point() -> None:
    ledger = ledger_of(6)
    near = nearness(ledger.results.points(), TWO)
    assert {trial for trial, rank in near.items() if rank == 0} == {
        point.trial for point in ledger.results.front().points
    }
