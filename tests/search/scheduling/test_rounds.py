"""Rounds: the result depends neither on the speed of trials nor on interruptions."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.simulator import WarmupsInMemory
from generalist_core.config.codec import to_json
from search.config import Population
from spaces import SPACES, Space
from tests.helpers.rounds import Search, few_warmups, picky, picky_lineages, small, small_lineages


def outcome(search: Search) -> dict[str, Any]:
    """The result, and the order in which it was told."""
    ledger = search.ledger()
    records = ledger.results.records()
    return {
        "suggestions": [(record.trial, record.params, record.asked_after) for record in records],
        "ends": [(record.state, record.stopped_at, record.failure) for record in records],
        "told": [growth.trial for growth in ledger.results.history()],
        "points": [(point.name, point.accuracies) for point in ledger.results.points()],
        "hypervolume": ledger.results.front().hypervolume,
    }


def ways(search: Search) -> set[str]:
    return {record.state for record in search.ledger().results.records()}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize(
    ("space", "seed", "other_way"), [(picky, 2, "stopped early"), (picky_lineages, 5, "failed")]
)
def test_in_rounds_the_number_of_workers_changes_nothing(
    sampler: str, space: Space, seed: int, other_way: str
) -> None:
    one = Search(1, sampler, space, seed).run()
    assert {"completed", other_way} <= ways(one)
    for n_workers in (2, 3):
        assert outcome(Search(n_workers, sampler, space, seed).run()) == outcome(one)


def test_without_rounds_it_does() -> None:
    found = [outcome(Search(n, "tpe", round_size=None).run()) for n in (1, 3)]
    assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "space", "seed", "every"),
    [("random", picky, 0, 5), ("tpe", picky, 0, 16), ("tpe", picky_lineages, 1, 12)],
)
@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_in_rounds_an_interruption_changes_nothing(
    n_workers: int, sampler: str, space: Space, seed: int, every: int
) -> None:
    """After any number of epochs; each case tries a part of them."""
    whole = Search(n_workers, sampler, space, seed).run()
    n_epochs = sum(map(len, whole.metrics.values()))
    expected = outcome(whole)
    for cut in range(n_workers, n_epochs, every):
        assert outcome(Search(n_workers, sampler, space, seed).run(cut).run()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 3])
def test_so_it_is_with_a_population(n_workers: int) -> None:
    """Of which a member that the space refuses begins anew, and one that was stopped takes over."""

    def search(n_workers: int) -> Search:
        population, warmups = Population(n_members=3, replaced=0.4), WarmupsInMemory()
        return Search(
            n_workers,
            "tpe",
            picky_lineages,
            population=population,
            n_trials=16,
            warmups=warmups,
        )

    whole = search(2).run()
    expected = outcome(whole)
    configs = [proposal.config for proposal in whole.ledger().results.proposals()]
    assert any(config.experts[1].earlier for config in configs)
    assert whole.ledger().results.cost()["reused_forward_images"] > 0
    for cut in range(1, sum(map(len, whole.metrics.values())), 9):
        assert outcome(search(n_workers).run(cut).run()) == expected


@pytest.mark.slow
def test_in_rounds_many_interruptions_and_other_workers_change_nothing() -> None:
    search = Search(1, "tpe", picky_lineages, seed=1)
    expected = outcome(Search(2, "tpe", picky_lineages, seed=1).run())
    for n in range(12):
        search.n_workers = 1 + n % 3
        search.run(13)
    assert outcome(search.run()) == expected


@pytest.mark.parametrize("round_size", [1, 2, 5, 50])
def test_a_round_of_any_size_comes_to_its_end(round_size: int) -> None:
    found = [Search(n_workers, round_size=round_size, n_trials=9).run() for n_workers in (1, 2, 9)]
    assert found[0].ledger().results.counts().total == 9
    assert outcome(found[0]) == outcome(found[1]) == outcome(found[2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", [few_warmups, SPACES["lineages"]])
def test_in_rounds_it_does_not_matter_which_trial_trains_a_shared_warm_up(
    seed: int, space: Space
) -> None:
    def search(n_workers: int, warmups: WarmupsInMemory | None) -> Search:
        return Search(n_workers, space=space, seed=seed, warmups=warmups)

    alone = search(2, None)
    shared, interrupted = (search(n_workers, WarmupsInMemory()) for n_workers in (3, 2))
    for _ in range(8):
        interrupted.run(9)
    found = [outcome(one.run()) for one in (alone, shared, interrupted)]
    assert found[0] == found[1] == found[2]
    assert space is not few_warmups or "stopped early" in ways(alone)
    assert shared.ledger().results.cost()["reused_forward_images"] > 0


def test_in_rounds_a_budget_ends_the_search_after_a_whole_round() -> None:
    """Whatever the number of workers; the next round begins only if the budget allows."""
    whole = Search(2, space=SPACES["smoke"], n_trials=9).run().ledger().results
    costs = [growth.forward_images for growth in whole.history()]
    for budget, n_trials in ((costs[2], 3), (costs[2] + 1, 6), (costs[5], 6), (1.0, 3)):
        for n_workers in (1, 3):
            search = Search(n_workers, space=SPACES["smoke"], n_trials=9, budget=budget)
            assert search.run().ledger().results.counts().total == n_trials
            search.budget = costs[-1]
            assert search.run().ledger().results.counts().total == 9


@pytest.mark.parametrize("space", [picky, picky_lineages])
def test_a_budget_counts_what_runs(space: Space) -> None:
    """Without rounds the last trial begins before the budget is spent, and none after."""
    found = Search(3, space=space, round_size=None, n_trials=99, budget=5e5).run()
    costs = [growth.forward_images for growth in found.ledger().results.history()]
    assert costs[-1] >= 5e5
    assert costs[-4] < 5e5


@pytest.mark.parametrize(
    ("sampler", "space", "n"),
    [("random", small, 9), ("tpe", small, 9), ("grid", small, 9), ("random", small_lineages, 10)],
)
def test_in_rounds_a_small_space_is_trained_once_however_it_is_interrupted(
    sampler: str, space: Space, n: int
) -> None:
    """Nine configurations are fewer than the trials, and end a round of four before its end."""
    whole = Search(1, sampler, space, round_size=4).run()
    configs = [to_json(p.config) for p in whole.ledger().results.proposals()]
    assert len(configs) == len(set(configs)) == n
    assert "failed" not in ways(whole)
    for n_workers in (2, 3):
        assert outcome(Search(n_workers, sampler, space, round_size=4).run()) == outcome(whole)
    for n_epochs in range(3, 30, 8):
        search = Search(3, sampler, space, round_size=4).run(n_epochs)
        assert outcome(search.run()) == outcome(whole)
        assert outcome(search.run()) == outcome(whole)
