"""Samplers by name."""

from __future__ import annotations

import pytest

from generalist_core.validation import InvalidConfigError
from search.study.samplers import build_samplers


def test_an_unknown_sampler_is_refused_by_name() -> None:
    message = r"tpe, nsga2, nsga3, gp, random, but got 'tpa'"
    with pytest.raises(InvalidConfigError, match=message):
        build_samplers("tpa", seed=0, n_startup=1)
