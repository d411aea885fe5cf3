"""The grid: every configuration once, in its order, released at one set of ratios."""

from __future__ import annotations

import pytest

from generalist_core.config.presets import short
from search.config import SweepConfig
from search.scheduling.grid import GridProposer
from search.scheduling.proposers import build_proposer
from search.study.failures import Failure
from search.study.records import ExhaustedError
from spaces import SPACES
from spaces.grid import NoGridError, grid
from tests.helpers.ledgers import COST, new_ledger, release
from tests.helpers.rounds import BASE, small

LOST = Failure(kind="worker-died", reason="planted")


def test_a_grid_is_proposed_in_its_order_and_then_ends() -> None:
    proposer = GridProposer(new_ledger("grid"), small, BASE)
    proposer.enqueue_first()
    expected = list(grid(small, BASE))
    for params, config in expected:
        proposal = proposer.propose()
        assert proposal.config == config
        assert proposal.params == {**params, "release_ratio.1": proposal.mixing_ratio}
        assert proposal.mixing_ratio == BASE.mixing.ratio.values[-1]
        proposer.ledger.tell_released(proposal.trial, release(proposal), COST)
        proposer.completed(proposal.trial)
    assert len(expected) == 9
    with pytest.raises(ExhaustedError, match="all 9 configurations of the grid were tried"):
        proposer.propose()


def test_what_was_lost_is_tried_again_first_and_once() -> None:
    ledger = new_ledger("grid")
    first, second = (GridProposer(ledger, small, BASE).propose() for _ in range(2))
    ledger.tell_failed(first.trial, LOST)
    again = GridProposer(ledger, small, BASE).propose()
    assert again.config == first.config != second.config
    ledger.tell_failed(again.trial, LOST)
    later = GridProposer(ledger, small, BASE).propose()
    assert later.config not in (first.config, second.config)


def test_the_sampler_grid_has_its_proposer_for_any_space() -> None:
    def no_data() -> None:
        raise AssertionError

    request = SweepConfig(base=short(), sampler="grid")
    for space in (small, SPACES["smoke"], SPACES["lineages"]):
        build = lambda: build_proposer(new_ledger(), space, request, no_data)  # type: ignore[arg-type] # noqa: E731, B023
        if space is small:
            assert isinstance(build(), GridProposer)
        else:
            with pytest.raises(NoGridError, match="continuous"):
                build()
