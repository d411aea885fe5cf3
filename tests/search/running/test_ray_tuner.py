"""A search as Ray sees it, on a cluster whose machines come and go."""

from __future__ import annotations

from pathlib import Path

from search.running.ray_tuner import TuneSearcher
from search.scheduling.proposer import Proposer
from search.scheduling.searcher import Searcher
from spaces import SPACES
from tests.helpers.watched import BASE, new_ledger


def test_a_sweep_uses_machines_that_join_and_survives_that_they_leave(tmp_path: Path) -> None:
    space, n_fit = SPACES["smoke"], iter([1, 1, 2, 0])
    searcher = Searcher(Proposer(new_ledger(space), space, BASE), n_trials=9)
    view = TuneSearcher(searcher, tmp_path, lambda: next(n_fit))
    suggestions = [view.suggest(name) for name in "abcd"]
    assert [given is not None for given in suggestions] == [True, False, True, False]
