"""Replay: a record leads to the same suggestions again, unless something has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config import CustomParts, Population, SweepConfig
from search.scheduling.replay import replay
from search.study.folder import Sweep
from search.study.samplers import N_STARTUP, build_samplers
from spaces import SPACES, Space
from tests.helpers.rounds import (
    BASE,
    WORLD,
    Search,
    picky,
    picky_lineages,
    small,
    small_lineages,
)


def as_sweep(search: Search) -> Sweep:
    config = SweepConfig(
        base=BASE, trials=search.n_trials, sampler=search.sampler, population=search.population
    )
    custom = CustomParts(data=WORLD.images())
    return Sweep(folder=Path("nowhere"), config=config, ledger=search.ledger(), custom=custom)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize(
    ("space", "population"),
    [(picky, None), (picky_lineages, None), (picky_lineages, Population(n_members=3))],
)
def test_the_record_gives_every_suggestion_again(
    n_workers: int, space: Space, population: Population | None
) -> None:
    search = Search(n_workers, "tpe", space, seed=1, round_size=None, population=population)
    search.run(20).run()
    assert replay(as_sweep(search), space) == []
    robust = [p.config.experts[1] for p in search.ledger().results.proposals()]
    assert any(expert.earlier for expert in robust) == (population is not None)


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize(
    ("sampler", "space"), [("tpe", small), ("grid", small), ("random", small_lineages)]
)
def test_so_does_that_of_a_small_space(n_workers: int, sampler: str, space: Space) -> None:
    """Suggestions that were tried before are passed over again."""
    search = Search(n_workers, sampler, space, round_size=None).run(7).run()
    sweep = as_sweep(search)
    assert sweep.counts.total >= 9
    assert replay(sweep, space) == []


def test_another_space_or_seed_is_found_out() -> None:
    sweep = as_sweep(Search(2, "tpe", n_trials=6).run())
    assert replay(sweep, SPACES["smoke"]) == [f"{number:04d}" for number in range(6)]
    sweep.ledger.sampler_of = build_samplers("tpe", seed=1, n_startup=N_STARTUP)
    assert replay(sweep, picky) == [f"{number:04d}" for number in range(3, 6)]
