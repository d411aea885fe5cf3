"""Samplers by name."""

from __future__ import annotations

import pytest
from optuna.samplers import TPESampler

from generalist_core.validation import InvalidConfigError
from search.config import SAMPLERS
from search.study.samplers import BUILDERS, build_samplers


def test_every_sampler_that_can_be_asked_for_can_be_built() -> None:
    assert tuple(BUILDERS) == SAMPLERS


def test_an_unknown_sampler_is_refused_by_name() -> None:
    message = r"tpe, nsga2, nsga3, gp, random, grid, but got 'tpa'"
    with pytest.raises(InvalidConfigError, match=message):
        build_samplers("tpa", seed=0, n_startup=1)


def test_a_sampler_is_new_for_each_suggestion() -> None:
    sampler_of = build_samplers("tpe", seed=0, n_startup=1)
    first, again = sampler_of("0000"), sampler_of("0000")
    assert isinstance(first, TPESampler)
    assert first is not again
