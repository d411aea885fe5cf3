"""The request that the options of a search make."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.cli.options import FailureOptions, ResourceOptions
from search.cli.request import SearchOptions, build_request
from search.config import (
    Floor,
    Population,
    Resources,
    StopWhenDone,
    SuccessiveHalving,
    SweepConfig,
)
from tests.helpers.problems import three_experts, with_expert


def requested(search: SearchOptions, *, workers: int | None = None) -> SweepConfig:
    resources = ResourceOptions(workers=workers)
    return build_request(search, short(), FailureOptions(), resources)


def test_without_options_it_is_the_default_request() -> None:
    assert requested(SearchOptions()) == SweepConfig(base=short())


def test_the_default_space_suits_the_experts() -> None:
    natural = with_expert(short(), "robust", attack=None)
    for base, space in ((short(), "lineages"), (three_experts(), "lineages"), (natural, "full")):
        options = FailureOptions(), ResourceOptions()
        assert build_request(SearchOptions(), base, *options).space == space
        assert build_request(SearchOptions(space="mixing"), base, *options).space == "mixing"


def test_every_option_has_its_field() -> None:
    search = SearchOptions(
        time_budget=60.0,
        at_least=("natural=0.8",),
        budget=2e8,
        eta=4.0,
        warmups="store",
        sharing=False,
        warm_start=("a.csv",),
        deterministic=True,
        min_growth=0.1,
        within_cost=1e6,
    )
    request = requested(search, workers=2)
    assert request.time_budget_s == 60.0
    assert request.at_least == (Floor(objective="natural", accuracy=0.8),)
    assert (request.trials, request.budget) == (None, 2e8)
    assert requested(SearchOptions(trials=9, budget=2e8)).trials == 9
    assert requested(SearchOptions(sampler="grid")).trials is None
    assert requested(SearchOptions(sampler="grid", trials=9)).trials == 9
    assert request.early_stopping == SuccessiveHalving(eta=4.0)
    assert request.warmups is not None
    assert request.warmups.folder == str(Path("store").absolute())
    assert not request.shares_warmups
    assert request.warm_start == ("a.csv",)
    assert request.round_size == 2
    assert request.stop_when == StopWhenDone(min_growth=0.1, within_cost=1e6)
    assert requested(SearchOptions(early_stopping=False)).early_stopping is None
    assert requested(SearchOptions(local=True)).resources == Resources(local=True)
    assert requested(SearchOptions(strategy="population")).population == Population()
    assert requested(SearchOptions(strategy="growing")) == SweepConfig(base=short())


def test_a_strategy_keeps_or_drops_the_population_of_a_file() -> None:
    before = SweepConfig(base=short(), population=Population(n_members=5))
    options = before.base, FailureOptions(), ResourceOptions()
    for strategy, population in (
        (None, before.population),
        ("population", before.population),
        ("growing", None),
    ):
        search = SearchOptions(strategy=strategy)  # type: ignore[arg-type]
        assert build_request(search, *options, before=before).population == population


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (SearchOptions(min_growth=0.1), "must be given together, but got 0.1 and None"),
        (SearchOptions(within_cost=1e6), "must be given together, but got None and 1000000.0"),
        (SearchOptions(deterministic=True), "`--workers` must be given"),
        (SearchOptions(at_least=("natural",)), "must be OBJECTIVE=X, but got 'natural'"),
        (SearchOptions(at_least=("natural=2",)), "accuracy <= 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(search: SearchOptions, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        requested(search)
