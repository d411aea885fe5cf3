"""Mixing ratios, their schedule, syncs and averages by hand, and which values are refused."""

from __future__ import annotations

import json

import pytest

from generalist_core.config import MixingConfig, RatioSchedule, SyncConfig, as_weights
from generalist_core.config.mixing import (
    GLOBAL,
    Released,
    as_released,
    ratio_text,
    released_order,
    released_text,
    rounded,
    shares_of,
    weights_of,
)
from generalist_core.validation import InvalidConfigError
from tests.helpers.refused import Broken, refusal_of

BROKEN: list[Broken] = [
    (RatioSchedule, {"knots": (0.0, 0.9)}, "from 0 to 1", "(0.0, 0.9)"),
    (RatioSchedule, {"values": (0.5,)}, "len(knots) == len(values)", "2 knots and 1 values"),
    (MixingConfig, {"source": "weights"}, "`source` must be one of experts, averages", "'weights'"),
    (MixingConfig, {"decay": 1.0}, "0 <= decay < 1", "decay=1.0"),
    (MixingConfig, {"decay": -0.1}, "0 <= decay < 1", "decay=-0.1"),
    (SyncConfig, {"start_epoch": -1}, "start_epoch >= 0", "start_epoch=-1"),
    (SyncConfig, {"every_epochs": 0}, "every_epochs > 0", "every_epochs=0"),
    (SyncConfig, {"at": "end"}, "`at` must be one of boundary, every_step", "'end'"),
]

test_a_broken_law_is_stated_with_what_broke_it = refusal_of(BROKEN)


@pytest.mark.parametrize(
    ("ratio", "n_experts", "weights"),
    [
        (0.0, 2, (1.0, 0.0)),
        (0.25, 2, (0.75, 0.25)),
        (1, 2, (0.0, 1.0)),
        ((0.25, 0.75), 2, (0.25, 0.75)),
        ((0, 1, 0), 3, (0.0, 1.0, 0.0)),
        ((0.1, 0.2, 0.7), 3, (0.1, 0.2, 0.7)),
    ],
)
def test_a_ratio_is_a_point_on_the_simplex(
    ratio: float | tuple[float, ...], n_experts: int, weights: tuple[float, ...]
) -> None:
    assert as_weights(ratio, n_experts) == weights
    assert all(type(weight) is float for weight in as_weights(ratio, n_experts))


@pytest.mark.parametrize(
    ("ratio", "n_experts", "got"),
    [
        (1.01, 2, "mixing_ratio=1.01"),
        (float("nan"), 2, "mixing_ratio=nan"),
        (0.5, 3, "ratio=0.5 for 3 experts"),
        ((0.5, 0.5), 3, "(0.5, 0.5) for 3 experts"),
        ((0.5, 0.4), 2, "(0.5, 0.4)"),
        ((1.5, -0.5), 2, "(1.5, -0.5)"),
        ((1.0, float("nan")), 2, "(1.0, nan)"),
    ],
)
def test_a_wrong_ratio_is_refused(
    ratio: float | tuple[float, ...], n_experts: int, got: str
) -> None:
    with pytest.raises(InvalidConfigError) as error:
        as_weights(ratio, n_experts)
    assert got in str(error.value)


@pytest.mark.parametrize(
    ("progress", "weights"),
    [(0.0, (0.0, 1.0)), (0.5, (0.0, 1.0)), (0.75, (0.3, 0.7)), (1.0, (0.6, 0.4))],
)
def test_a_ratio_schedule_is_linear_between_knots(
    progress: float, weights: tuple[float, ...]
) -> None:
    schedule = RatioSchedule(knots=(0.0, 0.5, 1.0), values=(1.0, 1.0, 0.4))
    assert schedule.weights(progress, 2) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("start", "every", "epochs"),
    [(0, 1, [0, 1, 2, 3, 4, 5, 6, 7]), (0, 3, [0, 3, 6]), (3, 2, [3, 5, 7]), (7, 5, [7])],
)
def test_sync_epochs(start: int, every: int, epochs: list[int]) -> None:
    sync = SyncConfig(start_epoch=start, every_epochs=every)
    assert [epoch for epoch in range(8) if sync.is_sync(epoch)] == epochs


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (MixingConfig(decay=0.999), {0: 0.1, 1: 2 / 11, 90: 0.91, 8990: 0.999, 10**6: 0.999}),
        (MixingConfig(decay=0.9, decay_warmup=False), {0: 0.9, 5: 0.9}),
        (MixingConfig(decay=0.0), {0: 0.0, 5: 0.0}),
    ],
)
def test_the_decay_of_averages(config: MixingConfig, known: dict[int, float]) -> None:
    assert {t: config.decay_at(t) for t in known} == pytest.approx(known)


@pytest.mark.parametrize(
    "weights",
    [(1.0,), (0.2, 0.3, 0.5), (0.0, 1.0, 0.0), (0.25,) * 4, (0.0, 0.5, 0.0, 0.5), (1e-6, 1 - 1e-6)],
)
def test_every_point_on_the_simplex_has_shares(weights: tuple[float, ...]) -> None:
    shares = shares_of(weights)
    assert all(0 <= share < 1 for share in shares)
    assert weights_of(shares) == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize("shares", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.4, 0.4, 0.4)])
def test_equal_shares_are_equal_weights(shares: tuple[float, ...]) -> None:
    assert weights_of(shares) == pytest.approx((1 / 3,) * 3)


def test_the_shares_of_a_schedule_are_those_of_its_ends() -> None:
    schedule = RatioSchedule(values=((0.2, 0.3, 0.5), (0.0, 0.0, 1.0)))
    assert weights_of(schedule.start_shares) == pytest.approx((0.2, 0.3, 0.5))
    assert weights_of(schedule.end_shares) == pytest.approx((0.0, 0.0, 1.0))
    assert RatioSchedule().start_shares == RatioSchedule().end_shares == ()


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_rounded_weights_have_six_decimals_and_are_a_ratio(n: int) -> None:
    for weights in ((1 / n,) * n, weights_of([i / n for i in range(n)])):
        short = rounded(weights)
        assert as_weights(short, n) == pytest.approx(weights, abs=n * 1e-6)
        assert all(len(str(weight)) <= len("0.123456") for weight in short)


@pytest.mark.parametrize(
    ("released", "text", "words"),
    [
        (0.31249, "0.312", "mixing ratio 0.312"),
        ((0.2, 0.3, 0.5), "0.2-0.3-0.5", "mixing ratio 0.2-0.3-0.5"),
        (GLOBAL, "global", "global learner"),
    ],
)
def test_what_is_released_is_printed_stored_and_read(
    released: Released, text: str, words: str
) -> None:
    assert (ratio_text(released), released_text(released)) == (text, words)
    assert as_released(json.loads(json.dumps(released))) == released


def test_the_global_learner_comes_after_all_mixtures() -> None:
    for ratios in ((0.0, 1.0), ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0))):
        assert sorted([GLOBAL, *ratios], key=released_order) == [*ratios, GLOBAL]
