"""The results of a study: costs, points and front."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from optuna.storages import InMemoryStorage

from generalist_core.config.presets import short
from search.config import Floor
from search.front.front import Front
from search.study.ledger import Ledger
from search.study.results import Results
from spaces import SPACES
from tests.helpers.ledgers import COST, PLANTED, new_ledger, release, told_out_of_order
from tests.helpers.points import OBJECTIVES


def test_costs_add_up_over_all_ends() -> None:
    ledger = new_ledger()
    done, stopped, failed, lost = (ledger.ask(SPACES["smoke"], short()) for _ in range(4))
    ledger.tell_released(done.trial, release(done), COST)
    ledger.tell_stopped(stopped.trial, 1, COST, {"natural": 0.5, "robust": 0.25})
    ledger.tell_failed(failed.trial, PLANTED, COST)
    ledger.tell_failed(lost.trial, PLANTED)
    assert ledger.results.cost() == {name: 3 * value for name, value in COST.items()}


def test_a_configuration_of_before_a_field_was_there_counts_as_tried() -> None:
    """As a sweep that an older version began holds them."""
    ledger = new_ledger()
    proposal = ledger.ask(SPACES["smoke"], short())
    asked = copy.deepcopy(ledger.results.trial(proposal.trial))
    for expert in asked.user_attrs["config"]["experts"]:
        del expert["earlier"]
    results = Results(ledger.study, ledger.goals)
    results.add_asked(asked)
    assert results.was_tried(proposal.config)
    assert not results.was_tried(dataclasses.replace(proposal.config, seed=7))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("floors", [(), (Floor(objective="natural", accuracy=0.4),)])
def test_after_every_trial_the_front_is_that_of_all_points(
    seed: int, floors: tuple[Floor, ...]
) -> None:
    """Law 5."""
    ledger = Ledger(InMemoryStorage(), OBJECTIVES, floors=floors)
    for told in told_out_of_order(ledger, seed):
        expected = Front.of(told.results.points(), OBJECTIVES, told.results.reference)
        assert told.results.front() == expected
    assert 1 < len(ledger.results.front().points) < len(ledger.results.points())


@pytest.mark.parametrize("seed", range(5))
def test_a_reopened_ledger_has_the_same_points_and_the_same_front(seed: int) -> None:
    """Trials that end in another order than they began, with points of equal values."""
    storage = InMemoryStorage()
    for told in told_out_of_order(new_ledger(storage=storage), seed):
        again = new_ledger(storage=storage, is_new=False)
        assert again.results.points() == told.results.points()
        assert again.results.front() == told.results.front()
