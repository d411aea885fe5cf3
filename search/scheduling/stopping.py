"""When a sweep is done: once its hypervolume has stopped growing."""

from __future__ import annotations

from collections.abc import Sequence

from generalist_core.validation import InvalidConfigError
from search.config import StopWhenDone


def is_done(history: Sequence[tuple[float, float]], rule: StopWhenDone) -> bool:
    """Whether a sweep with this history of (total cost, hypervolume) is done.

    A sweep whose hypervolume was 0 before the last `within_cost` is not done.

    Raises:
        InvalidConfigError: the history is not sorted by rising cost.
    """
    costs = [cost for cost, _ in history]
    if costs != sorted(costs):
        raise InvalidConfigError(
            f"The history must be sorted by rising cost, but got the costs {costs}."
        )
    if not history:
        return False
    now, reached = history[-1]
    before = [volume for cost, volume in history if cost <= now - rule.within_cost]
    return bool(before) and before[-1] > 0 and reached <= before[-1] * (1 + rule.min_growth)
