"""Grids: every combination once, in a fixed order, found by calling the space."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import spaces.grid
from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at, value_at
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from spaces import SPACES, Space, Trial
from spaces.grid import NoGridError, grid, grid_size

BASE = short(epochs=16)


def product(trial: Trial, base: TrainConfig) -> TrainConfig:
    size = trial.suggest_categorical("batch_size", [32, 16])
    start = trial.suggest_int("sync.start_epoch", 2, 9, step=3)
    decay = trial.suggest_float("mixing.decay", 0.1, 0.35, step=0.1)
    config = replace_at(base, "batch_size", size)
    return replace_at(replace_at(config, "sync.start_epoch", start), "mixing.decay", decay)


def conditional(trial: Trial, base: TrainConfig) -> TrainConfig:
    """One configuration, then three; the further one is asked for again by another branch."""
    if trial.suggest_categorical("way", ["kept", "changed"]) == "changed":
        return replace_at(base, "sync.start_epoch", trial.suggest_int("sync.start_epoch", 2, 4))
    return base


def params_of(space: Space, **fixed: Any) -> list[dict[str, Any]]:
    return [params for params, _ in grid(space, BASE, fixed)]


def test_a_grid_is_the_product_of_the_values_in_their_order() -> None:
    """No multiple of the step lies at 0.35; the last parameter changes first."""
    names = ("batch_size", "sync.start_epoch", "mixing.decay")
    values = itertools.product([32, 16], [2, 5, 8], [0.1, 0.2, 0.3])
    assert params_of(product) == [dict(zip(names, value, strict=True)) for value in values]
    assert grid_size(product, BASE) == 18
    for params, config in grid(product, BASE):
        assert {name: value_at(config, name) for name in names} == params


def test_a_parameter_is_part_of_the_combinations_that_ask_for_it() -> None:
    assert params_of(conditional) == [
        {"way": "kept"},
        *({"way": "changed", "sync.start_epoch": start} for start in (2, 3, 4)),
    ]


def test_what_is_fixed_does_not_vary() -> None:
    fixed = {"batch_size": 16, "mixing.decay": 0.123}
    assert [p["sync.start_epoch"] for p in params_of(product, **fixed)] == [2, 5, 8]
    assert all(fixed.items() <= params.items() for params in params_of(product, **fixed))


def test_a_parameter_that_is_asked_for_twice_has_one_value() -> None:
    def twice(trial: Trial, base: TrainConfig) -> TrainConfig:
        one, other = (trial.suggest_categorical("n", [16, 32]) for _ in range(2))
        assert one == other
        return replace_at(base, "batch_size", one)

    assert params_of(twice) == [{"n": 16}, {"n": 32}]


def test_what_is_refused_or_leads_to_the_same_is_left_out() -> None:
    def some(trial: Trial, base: TrainConfig) -> TrainConfig:
        size = trial.suggest_int("size", 0, 2)
        trial.suggest_categorical("unused", ["a", "b"])
        return replace_at(base, "batch_size", size)

    assert params_of(some) == [{"size": n, "unused": "a"} for n in (1, 2)]


def test_nothing_to_search_is_a_grid_of_one() -> None:
    assert params_of(spaces.fixed) == [{}]
    assert grid_size(spaces.fixed, BASE) == 1


def test_a_range_of_one_number_is_no_continuous_one() -> None:
    def single(trial: Trial, base: TrainConfig) -> TrainConfig:
        return replace_at(base, "mixing.decay", trial.suggest_float("mixing.decay", 0.5, 0.5))

    assert params_of(single) == [{"mixing.decay": 0.5}]


@pytest.mark.parametrize("name", SPACES)
def test_a_continuous_space_has_no_grid_and_all_its_parameters_are_named(name: str) -> None:
    with pytest.raises(NoGridError, match=r"experts\.|mixing\.") as raised:
        grid_size(SPACES[name], BASE)
    assert "Give each a `step`" in str(raised.value)
    assert "release_ratio" not in str(raised.value)
    with pytest.raises(NoGridError, match="continuous"):
        list(grid(SPACES[name], BASE))


def test_a_continuous_parameter_that_few_combinations_have_is_found() -> None:
    """Neither the error of the space nor its catching everything hides it."""

    def rare(trial: Trial, base: TrainConfig) -> TrainConfig:
        if trial.suggest_int("n", 1, 3000) == 2999:
            trial.suggest_float("x", 0.0, 1.0)
            raise InvalidConfigError("never")
        return base

    with pytest.raises(NoGridError, match="the continuous x"):
        list(grid(rare, BASE))


def test_a_grid_that_is_too_large_or_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces.grid, "MOST", 18)
    assert grid_size(product, BASE) == 18
    monkeypatch.setattr(spaces.grid, "MOST", 17)
    with pytest.raises(NoGridError, match="at most 17 combinations, but the space has more"):
        grid_size(product, BASE)

    def refusing(trial: Trial, base: TrainConfig) -> TrainConfig:
        raise InvalidConfigError(f"not {trial.suggest_int('n', 1, 3)}")

    with pytest.raises(NoGridError, match="refuses all"):
        grid_size(refusing, BASE)
