"""What all searches of lineages have in common."""

from __future__ import annotations

from functools import partial

import pytest

from generalist_core.config import PGD, ExpertConfig, TrainConfig
from generalist_core.config.presets import short
from generalist_core.training.cost import update_cost
from search.config import Growing, Population
from search.scheduling.branching import epochs_for
from search.scheduling.lineages import LineageProposer
from search.scheduling.population import PopulationProposer
from spaces import SPACES, Trial
from tests.helpers.ledgers import new_ledger


@pytest.mark.parametrize("steps", [2, 10])
@pytest.mark.parametrize("n_epochs", [1, 3, 20])
def test_epochs_are_as_many_as_are_paid_for(steps: int, n_epochs: int) -> None:
    robust = ExpertConfig(name="robust", attack=PGD(epsilon=0.1, steps=steps))
    cost = update_cost(robust)
    assert epochs_for(n_epochs * cost, robust) == epochs_for((n_epochs + 0.4) * cost, robust)
    assert epochs_for(n_epochs * cost, robust) == n_epochs
    assert epochs_for(0.01 * cost, robust) == 1


def test_a_population_begins_as_growing_lineages_do() -> None:
    space, base = SPACES["lineages"], short()
    growing = LineageProposer(new_ledger(), space, base, Growing(), 2.0)
    for n_members in (2, 4, 8):
        population = Population(n_members=n_members)
        proposer = PopulationProposer(new_ledger(), space, base, population, point_cost=2.0, seed=0)
        assert proposer.first() == growing.first()[:n_members]


def test_a_stage_is_refined_as_far_as_half_of_its_cost_pays_for() -> None:
    """Three points of a branch are always released; a known robust expert that rests is not."""
    proposer = LineageProposer(new_ledger(), SPACES["lineages"], short(), Growing(), 2.0)

    def released(spent: float, *, is_known: bool = False) -> TrainConfig:
        def space(trial: Trial, base: TrainConfig) -> TrainConfig:
            stage = partial(proposer.further_stage, epochs_of=lambda _: 5, spent=spent)
            return stage(trial, base, is_known=is_known)

        given = {"experts.robust.rests": True}
        return proposer.ledger.ask(space, short(), fixed=given).config

    wanted = short().evaluation.n_refinements
    assert wanted >= 2
    assert [released(spent).evaluation.n_refinements for spent in (1.0, 12.0, 16.0, 400.0)] == [
        0,
        0,
        1,
        wanted,
    ]
    assert released(1.0).evaluation.release_ratios == (0.0, 1.0)
    assert released(1.0, is_known=True).evaluation.release_ratios == (0.0,)
