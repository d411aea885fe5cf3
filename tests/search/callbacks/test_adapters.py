"""What the adapters have in common."""

from __future__ import annotations

import math

import pytest

import search.callbacks
from generalist_core.validation import InvalidConfigError
from search.callbacks.adapters import key_of, library, numbers_of, outcome_of
from tests.helpers.ledgers import COST, release
from tests.helpers.searches import proposed, searcher


def test_the_protocol_and_the_adapters_are_public() -> None:
    assert set(search.callbacks.__all__) == {"Callback", "MLflowCallback", "WandbCallback"}


def test_a_library_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(InvalidConfigError, match=r"generalist-search\[nowhere\]"):
        library("nowhere")


def test_only_finite_numbers_are_recorded() -> None:
    metrics = {"loss/robust": math.nan, "epoch": 3, "epoch/robust": 3, "synced": True, "name": "x"}
    assert numbers_of(metrics) == {"synced": 1.0}


def test_the_outcome_is_the_best_of_each_objective() -> None:
    searching = searcher()
    proposal = proposed(searching)
    ledger = searching.ledger
    ledger.tell_released(proposal.trial, release(proposal), COST)
    outcome = outcome_of(release(proposal), ledger.results)
    hypervolume = ledger.results.front().hypervolume
    assert outcome == {"best/natural": 1.0, "best/robust": 0.5, "front/hypervolume": hypervolume}
    other = proposed(searching)
    assert key_of(proposal) != key_of(other)
