"""Schedules at points where their value is known, and laws of all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from generalist_core.config import Constant, Cosine, OneCycle, PiecewiseLinear, Schedule
from generalist_core.config.schedules import locate
from tests.helpers.refused import Broken, refusal_of

THREE = PiecewiseLinear(knots=(0.0, 0.25, 1.0), values=(0.0, 1.0, 0.4))

KNOWN: list[tuple[Schedule, dict[float, float]]] = [
    (Constant(), {0.0: 1.0, 0.3: 1.0, 1.0: 1.0}),
    (THREE, {0.0: 0.0, 0.125: 0.5, 0.25: 1.0, 0.625: 0.7, 1.0: 0.4}),
    (Cosine(), {0.0: 1.0, 0.5: 0.5, 1 / 3: 0.75, 1.0: 0.0}),
    (Cosine(final=0.2), {0.0: 1.0, 0.5: 0.6, 1.0: 0.2}),
    (OneCycle(peak=0.2, initial=0.1), {0.0: 0.1, 0.1: 0.55, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
]


@pytest.mark.parametrize(("schedule", "known"), KNOWN, ids=lambda case: str(case)[:30])
def test_known_values(schedule: Schedule, known: dict[float, float]) -> None:
    assert {t: schedule(t) for t in known} == pytest.approx(known)


def test_piecewise_linear_is_interpolation() -> None:
    progress = np.linspace(0, 1, 101)
    np.testing.assert_allclose(
        [THREE(t) for t in progress], np.interp(progress, THREE.knots, THREE.values)
    )


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.1)
    for step in range(10):
        assert Cosine(final=0.1)(step / 10) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("schedule", [case[0] for case in KNOWN], ids=lambda s: str(s)[:30])
def test_values_scale_a_learning_rate(schedule: Schedule) -> None:
    values = [schedule(t) for t in np.linspace(0, 1, 50)]
    assert min(values) >= 0
    assert max(values) <= 1


@pytest.mark.parametrize(
    ("progress", "place"),
    [(0.0, (0, 0.0)), (0.1, (0, 0.4)), (0.25, (1, 0.0)), (0.625, (1, 0.5)), (1.0, (1, 1.0))],
)
def test_locate(progress: float, place: tuple[int, float]) -> None:
    left, fraction = locate((0.0, 0.25, 1.0), progress)
    assert left == place[0]
    assert math.isclose(fraction, place[1])


BROKEN: list[Broken] = [
    (PiecewiseLinear, {"knots": (0.0, 0.5), "values": (1.0, 1.0)}, "from 0 to 1", "(0.0, 0.5)"),
    (PiecewiseLinear, {"knots": (0.1, 1.0), "values": (1.0, 1.0)}, "from 0 to 1", "(0.1, 1.0)"),
    (PiecewiseLinear, {"knots": (0.0,), "values": (1.0,)}, "from 0 to 1", "(0.0,)"),
    (PiecewiseLinear, {"knots": (), "values": ()}, "from 0 to 1", "knots=()"),
    (
        PiecewiseLinear,
        {"knots": (0.0, 0.7, 0.3, 1.0), "values": (1.0,) * 4},
        "`knots` must increase",
        "(0.0, 0.7, 0.3, 1.0)",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 0.5, 0.5, 1.0), "values": (1.0,) * 4},
        "`knots` must increase",
        "(0.0, 0.5, 0.5, 1.0)",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 1.0), "values": (1.0,)},
        "len(knots) == len(values)",
        "2 knots and 1 values",
    ),
    (
        PiecewiseLinear,
        {"knots": (0.0, 1.0), "values": (1.0, -1.0)},
        "min(values) >= 0",
        "values=(1.0, -1.0)",
    ),
    (Cosine, {"final": 1.5}, "0 <= final <= 1", "final=1.5"),
    (OneCycle, {"peak": 0.0}, "peak > 0", "peak=0.0"),
    (OneCycle, {"peak": 1.0}, "peak < 1", "peak=1.0"),
    (OneCycle, {"initial": -0.1}, "0 <= initial <= 1", "initial=-0.1"),
    (OneCycle, {"final": 1.1}, "0 <= final <= 1", "final=1.1"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)
