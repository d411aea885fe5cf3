"""When a sweep is done: its hypervolume has stopped growing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generalist_core.validation import require, require_positive


@dataclass(frozen=True, kw_only=True)
class StopWhenDone:
    """Done once the hypervolume grew by no more than `min_growth` within the last `within_cost`.

    `min_growth` is a fraction of the hypervolume before, 0 meaning no growth at all. `within_cost`
    is in forward images; take several trials' worth of it, as one trial may well add nothing.
    """

    min_growth: float
    within_cost: float

    def __post_init__(self) -> None:
        require(0 <= self.min_growth < 1, "0 <= min_growth < 1", f"min_growth={self.min_growth}")
        require_positive("within_cost", self.within_cost)


def is_done(history: Sequence[tuple[float, float]], rule: StopWhenDone) -> bool:
    """Whether a sweep with this history of (cost so far, hypervolume) is done, by rising cost.

    A sweep that had found nothing by the beginning of the last `within_cost` is never done.
    """
    costs = [cost for cost, _ in history]
    require(costs == sorted(costs), "history by rising cost", f"costs {costs}")
    if not history:
        return False
    now, reached = history[-1]
    before = [worth for cost, worth in history if cost <= now - rule.within_cost]
    return bool(before) and before[-1] > 0 and reached <= before[-1] * (1 + rule.min_growth)
