"""Samplers by name."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler

from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import SAMPLERS
from search.study.samplers import BUILDERS, N_PARENTS, build_samplers, moved
from spaces import SPACES
from tests.helpers.ledgers import COST, new_ledger, release


def test_every_sampler_that_can_be_asked_for_can_be_built() -> None:
    assert tuple(BUILDERS) == SAMPLERS


def test_an_unknown_sampler_is_refused_by_name() -> None:
    message = r"tpe, nsga2, nsga3, gp, random, grid, but got 'tpa'"
    with pytest.raises(InvalidConfigError, match=message):
        build_samplers("tpa", seed=0, n_startup=1)


def test_a_sampler_is_new_for_each_suggestion() -> None:
    sampler_of = build_samplers("tpe", seed=0, n_startup=1)
    first, again = sampler_of("0000"), sampler_of("0000")
    assert isinstance(first, TPESampler)
    assert first is not again


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_nsga_breeds_within_a_short_sweep(sampler: str) -> None:
    """Children have values of their parents; with Optuna's population there are none before 50."""
    ledger, known, inherited = new_ledger(sampler), set[float](), 0
    for number in range(20):
        proposal = ledger.ask(SPACES["full"], short())
        values = {value for value in proposal.params.values() if isinstance(value, float)}
        if number < N_PARENTS:
            assert not values & known
        inherited += len(values & known)
        known |= values
        ledger.tell_released(proposal.trial, release(proposal), COST)
    assert inherited > 10


def test_a_number_moves_by_a_quarter_within_its_range() -> None:
    rate = FloatDistribution(0.01, 0.5, log=True)
    assert moved(0.1, rate, 1) == pytest.approx(0.125)
    assert moved(0.1, rate, -1) == pytest.approx(0.075)
    assert moved(0.45, rate, 1) == 0.5
    steps = IntDistribution(2, 12)
    assert [moved(n, steps, 1) for n in (2, 3, 8, 12)] == [3, 4, 10, 12]
    assert [moved(n, steps, -1) for n in (2, 3, 8, 12)] == [2, 2, 6, 9]
    assert all(isinstance(moved(n, steps, 1), int) for n in (2, 3, 8, 12))
    assert moved(0.5, FloatDistribution(0.0, 1.0, step=0.1), 1) == pytest.approx(0.6)
    assert moved("a", CategoricalDistribution(["a", "b"]), 1) == "a"
