"""When the hypervolume has stopped growing."""

from __future__ import annotations

import numpy as np
import pytest

from generalist_core.validation import InvalidConfigError
from search.config import StopWhenDone
from search.scheduling.stopping import is_done

History = list[tuple[float, float]]

GROWING: History = [(10, 0.2), (20, 0.4), (30, 0.5), (40, 0.505), (50, 0.505)]


def random_history(seed: int) -> History:
    """Costs and hypervolumes that rise, the latter more and more slowly."""
    source = np.random.default_rng(seed)
    worth = np.cumsum(source.random(40) * 0.7 ** np.arange(40))
    return list(zip(np.cumsum(source.random(40)).tolist(), worth.tolist(), strict=True))


def done_at(history: History, rule: StopWhenDone) -> list[bool]:
    return [is_done(history[: n + 1], rule) for n in range(len(history))]


@pytest.mark.parametrize(
    ("min_growth", "within_cost", "expected"),
    [
        (0.02, 10, [False, False, False, True, True]),
        (0.02, 20, [False, False, False, False, True]),
        (0.0, 10, [False, False, False, False, True]),
        (0.3, 10, [False, False, True, True, True]),
        (0.02, 100, [False] * 5),
    ],
)
def test_a_history_by_hand(min_growth: float, within_cost: float, expected: list[bool]) -> None:
    rule = StopWhenDone(min_growth=min_growth, within_cost=within_cost)
    assert done_at(GROWING, rule) == expected


@pytest.mark.parametrize("history", [[], [(10, 0.3)], [(10, 0.0), (20, 0.0), (30, 0.0)]])
def test_a_sweep_that_had_found_nothing_is_not_done(history: History) -> None:
    assert not is_done(history, StopWhenDone(min_growth=0.5, within_cost=10))


@pytest.mark.parametrize("seed", range(5))
def test_units_change_nothing(seed: int) -> None:
    history = random_history(seed)
    scaled = [(1024 * cost, 0.25 * worth) for cost, worth in history]
    rule = StopWhenDone(min_growth=0.01, within_cost=2)
    expected = done_at(history, rule)
    assert done_at(scaled, StopWhenDone(min_growth=0.01, within_cost=2048)) == expected
    assert any(expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_more_patient_rule_never_ends_a_sweep_earlier(seed: int) -> None:
    history = random_history(seed)
    eager = done_at(history, StopWhenDone(min_growth=0.05, within_cost=2))
    for growth, cost in ((0.05, 4), (0.01, 2), (0.0, 9)):
        patient = done_at(history, StopWhenDone(min_growth=growth, within_cost=cost))
        assert all(e or not p for e, p in zip(eager, patient, strict=True))


def test_a_history_out_of_order_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="rising cost"):
        is_done([(20, 0.1), (10, 0.2)], StopWhenDone(min_growth=0.1, within_cost=1))
