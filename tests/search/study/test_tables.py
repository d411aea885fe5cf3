"""The results as tables of pandas."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from optuna.storages import InMemoryStorage

from generalist_core.validation import InvalidConfigError
from search.front.points import values_of
from search.study.folder import Sweep, open_sweep
from search.study.ledger import Ledger
from search.study.tables import front_rows, points_table, sorted_by, trials_table
from tests.helpers.ledgers import new_ledger, told_out_of_order
from tests.helpers.points import OBJECTIVES


@pytest.fixture
def swept(two_trials: Path) -> Sweep:
    return open_sweep(two_trials)


def test_trials_are_a_table_with_a_row_each(swept: Sweep) -> None:
    table = swept.trials
    assert list(table.index) == ["0000", "0001"]
    assert set(table["state"]) == {"completed"}
    assert table["on_front"].sum() == len(swept.front.points)
    assert (table["forward_images"] > 0).all()
    assert "experts.natural.optimizer.lr" in table.columns
    for trial, row in table.iterrows():
        own = [point for point in swept.results.points() if point.trial == trial]
        best = values_of(own, OBJECTIVES).max(0)
        assert [row[f"best_{name}"] for name in OBJECTIVES] == pytest.approx(best.tolist())


def test_trials_are_sorted_by_value_and_those_without_one_come_last() -> None:
    columns = {"n": [10, None, 9], "kind": ["b", "a", 3], "trial": ["0000", "0001", "0002"]}
    table = pd.DataFrame(columns).set_index("trial").convert_dtypes()
    for column, expected in {
        "n": ["0002", "0000", "0001"],
        "-n": ["0000", "0002", "0001"],
        "kind": ["0002", "0001", "0000"],
        "-trial": ["0002", "0001", "0000"],
    }.items():
        assert list(sorted_by(table, column).index) == expected
    with pytest.raises(InvalidConfigError, match="`sort` must be one of trial, n, kind, but got"):
        sorted_by(table, "m")


def test_points_are_a_table_with_a_row_each(swept: Sweep) -> None:
    table, points = swept.points, swept.results.points()
    assert len(table) == len(points)
    assert table["on_front"].sum() == len(swept.front.points)
    for (trial, row), point in zip(table.iterrows(), points, strict=True):
        assert (trial, row["mixing_ratio"]) == (point.trial, point.mixing_ratio)
        assert (row["robust_low"], row["robust_high"]) == point.interval("robust")


def test_without_trials_the_tables_are_empty() -> None:
    results = Ledger(InMemoryStorage(), OBJECTIVES).results
    assert len(trials_table(results)) == len(points_table(results)) == len(front_rows(results)) == 0
    assert list(points_table(results).columns)[-2:] == ["n_images", "on_front"]
    assert list(front_rows(results).columns) == list(points_table(results).columns)[:-1]


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_of_the_front_are_its_points_in_its_order(seed: int) -> None:
    for ledger in told_out_of_order(new_ledger(), seed):
        rows, points = front_rows(ledger.results), ledger.results.front().points
        keys = zip(rows.index, rows["mixing_ratio"], strict=True)
        assert list(keys) == [(point.trial, point.mixing_ratio) for point in points]
        assert rows[list(OBJECTIVES)].to_numpy().tolist() == values_of(points, OBJECTIVES).tolist()
