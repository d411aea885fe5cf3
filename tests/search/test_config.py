"""All that a sweep can be asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from generalist_core.config import SyncConfig
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search import config as configs
from search.config import CustomParts, Floor, Growing, StopWhenDone, SuccessiveHalving, SweepConfig
from tests.helpers.fields import acceptance_of_own, refusal_of_others
from tests.helpers.refused import Broken, refusal_of
from tests.helpers.tiny import tiny_config

REQUIRED: dict[str, dict[str, Any]] = {
    "Floor": {"objective": "natural", "accuracy": 0.5},
    "StopWhenDone": {"min_growth": 0.1, "within_cost": 100.0},
    "SweepConfig": {"base": tiny_config()},
    "WarmupConfig": {"folder": "warmups"},
}
"""What each class cannot be built without."""

CLASSES = [
    kind
    for kind in vars(configs).values()
    if dataclasses.is_dataclass(kind)
    and kind.__module__ == configs.__name__
    and kind is not CustomParts
]

test_a_value_of_another_type_is_refused = refusal_of_others(CLASSES, REQUIRED)
test_the_own_value_is_accepted = acceptance_of_own(CLASSES, REQUIRED)


def test_every_configuration_is_checked() -> None:
    assert len(CLASSES) == 10


BROKEN: list[Broken] = [
    *(
        (Floor, {"objective": "natural", "accuracy": accuracy}, "0 <= accuracy <= 1", "accuracy=")
        for accuracy in (-0.1, 80.0)
    ),
    (Growing, {"n_first": 0}, "n_first > 0", "n_first=0"),
    (Growing, {"first_cost": 0}, "first_cost > 0", "first_cost=0"),
    (Growing, {"second_cost": 0}, "second_cost > 0", "second_cost=0"),
    (Growing, {"growth": 1}, "growth > 1", "growth=1"),
    (Growing, {"eta": 1}, "eta > 1", "eta=1"),
    (Growing, {"patience": 0}, "patience > 0", "patience=0"),
    (Growing, {"min_growth": 1}, "min_growth < 1", "min_growth=1"),
    (StopWhenDone, {"min_growth": -0.1, "within_cost": 1}, "0 <= min_growth < 1", "=-0.1"),
    (StopWhenDone, {"min_growth": 1.0, "within_cost": 1}, "0 <= min_growth < 1", "=1.0"),
    (StopWhenDone, {"min_growth": 0.1, "within_cost": 0}, "within_cost > 0", "within_cost=0"),
    (SuccessiveHalving, {"eta": 1}, "eta > 1", "eta=1"),
    (SuccessiveHalving, {"first_rung": 0}, "first_rung > 0", "first_rung=0"),
    (SuccessiveHalving, {"growth": 1.0}, "growth > 1", "growth=1.0"),
    (SweepConfig, {"base": short(), "budget": 0.0}, "budget > 0", "budget=0.0"),
    (SweepConfig, {"base": short(), "budget": -1e8}, "budget > 0", "budget=-1"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)


def test_a_sweep_has_an_end() -> None:
    with pytest.raises(InvalidConfigError, match=r"must have an end.*trials=None"):
        SweepConfig(base=short(), trials=None)
    SweepConfig(base=short(), trials=None, budget=1e8)
    SweepConfig(base=short(), trials=None, time_budget_s=60)


@pytest.mark.parametrize(
    ("halving", "epochs", "expected"),
    [
        (SuccessiveHalving(), 30, (1, 3, 9, 27)),
        (SuccessiveHalving(), 27, (1, 3, 9)),
        (SuccessiveHalving(eta=2, first_rung=5), 41, (5, 10, 20, 40)),
        (SuccessiveHalving(first_rung=4, growth=1.5), 16, (4, 6, 9, 14)),
        (SuccessiveHalving(growth=1.2), 6, (1, 2, 3, 4, 5)),
        (SuccessiveHalving(first_rung=16), 16, ()),
    ],
)
def test_rungs_are_geometric_distinct_and_before_the_end(
    halving: SuccessiveHalving, epochs: int, expected: tuple[int, ...]
) -> None:
    assert halving.rungs(epochs) == expected


@pytest.mark.parametrize(
    ("start", "every", "expected"),
    [
        (8, 1, {9: 9, 14: 14}),
        (4, 3, {7: 6, 10: 9}),
        (5, 8, {13: 9}),
        (2, 3, {5: 4, 8: 6, 11: 9, 14: 14}),
        (14, 9, {}),
    ],
)
def test_a_trial_reports_at_the_first_sync_at_or_after_a_rung(
    start: int, every: int, expected: dict[int, int]
) -> None:
    sync = SyncConfig(start_epoch=start, every_epochs=every)
    boundaries = [epoch for epoch in range(start + 1, 17) if sync.is_sync(epoch)]
    halving = SuccessiveHalving(first_rung=4, growth=1.5)
    assert halving.reports(boundaries, 16) == expected
    assert halving.reports([*reversed(boundaries), *boundaries], 16) == expected


def test_a_warm_up_reports_at_the_rungs_themselves() -> None:
    assert SuccessiveHalving(eta=2).reports(range(1, 13), 12) == {1: 1, 2: 2, 4: 4, 8: 8}
