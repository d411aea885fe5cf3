"""The front of what a method has found: chosen on validation, measured on test images."""

from __future__ import annotations

import pytest

from benchmarks.fronts import FoundFront
from benchmarks.tasks import Candidate, Task


def candidate(validated: tuple[float, float], tested: tuple[float, float]) -> Candidate:
    first, second = ({"natural": n, "robust": r} for n, r in (validated, tested))
    return Candidate(validated=first, test=lambda: second)


def test_validation_chooses_and_test_images_measure() -> None:
    """The third candidate would be best on test images, but another dominates it."""
    front = FoundFront(Task.of("simulated", "", 0))
    front.reference = 0.5
    front.add(10, [candidate((0.9, 0.2), (0.8, 0.2))])
    front.add(25, [candidate((0.6, 0.5), (0.6, 0.4)), candidate((0.5, 0.4), (1.0, 1.0))])
    assert [row["cost"] for row in front.history] == [10, 25]
    first, last = front.history
    assert first["hypervolume"] == pytest.approx(0.16)
    assert first["trade_off"] == pytest.approx(0.3 * 0.2)
    assert last["hypervolume"] == pytest.approx(0.8 * 0.2 + 0.6 * 0.2)
    assert last["trade_off"] == pytest.approx(0.3 * 0.2 + 0.1 * 0.2)
