"""When a sweep is done: its hypervolume has stopped growing."""

from __future__ import annotations

from collections.abc import Sequence

from generalist_core.validation import require
from search.config import StopWhenDone


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
