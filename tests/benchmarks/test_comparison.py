"""Searches are compared within the cost of the plain one."""

from __future__ import annotations

from typing import Any

from benchmarks.comparison import table


def result(*rows: tuple[float, float]) -> dict[str, Any]:
    history = [{"cost": cost, "hypervolume": v, "trade_off": v / 10} for cost, v in rows]
    return {"cost": rows[-1][0], "history": history}


def test_a_search_counts_by_its_front_within_plains_cost() -> None:
    """The last trial may cost more than was left."""
    results = {
        "t/s/plain/0": result((5, 0.2), (100, 0.6)),
        "t/s/ours/0": result((1, 0.3), (4, 0.5), (110, 0.7)),
        "t/s/no stopping/0": result((9, 0.6), (90, 0.8)),
    }
    methods = ["plain", "random", "ours", "no stopping"]
    rows = [line.split(" | ") for line in table(results, "t", "s", methods)][2:]
    assert [row[4:] for row in rows] == [
        ["1.00", "1.00", "0.000, 0.200, 0.200", "0.000, 0.020, 0.020 |"],
        ["inf", "inf", "0.300, 0.500, 0.500", "0.030, 0.050, 0.050 |"],
        ["0.09", "0.09", "0.000, 0.000, 0.600", "0.000, 0.000, 0.060 |"],
    ]
    assert [row[2] for row in rows] == ["0.600", "0.500", "0.800"]
