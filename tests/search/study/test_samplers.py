"""Samplers by name."""

from __future__ import annotations

import pytest
from optuna.samplers import TPESampler

from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.config import SAMPLERS
from search.study.samplers import BUILDERS, N_PARENTS, build_samplers
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
