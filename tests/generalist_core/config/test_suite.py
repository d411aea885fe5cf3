"""The configuration of an attack suite: its names and ranges, and its JSON form."""

from __future__ import annotations

from typing import Any

import pytest

from generalist_core.config.codec import from_json, to_json
from generalist_core.config.suite import SuiteConfig
from generalist_core.validation import InvalidConfigError


def suite(*attacks: str, **changes: Any) -> SuiteConfig:
    settings = {"norm": "linf", "epsilon": 0.05, "attacks": attacks}
    return SuiteConfig(**{**settings, **changes})


@pytest.mark.parametrize(
    "name", ["pgd", "pgd-0", "pgd-x5", "pgd-10x0", "apgd", "PGD-20", "autoattack-plus", ""]
)
def test_unknown_names_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InvalidConfigError, match=r"There is natural, fgsm, pgd-K"):
        suite(name)


OUTSIDE = [("epsilon", -0.1), ("epsilon", 8.0), ("norm", "l3"), ("batch_size", 0), ("seed", -1)]
OUTSIDE += [("n_images", 0), ("n_check_images", -1), ("n_iterations", 2), ("n_queries", 0)]


@pytest.mark.parametrize(("name", "value"), [*OUTSIDE, ("attacks", ())])
def test_settings_outside_their_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=rf"{name}.* must "):
        suite("fgsm", **{name: value})


def test_json_is_lossless() -> None:
    config = suite("autoattack", "pgd-100x5", n_images=7, attack_all=True)
    assert from_json(to_json(config), SuiteConfig) == config


def test_batches_are_larger_on_a_gpu_unless_their_size_is_given() -> None:
    free, given = (SuiteConfig(norm="linf", epsilon=0.1, batch_size=n) for n in (None, 7))
    assert [free.size_on(kind) for kind in ("cpu", "cuda")] == [250, 1000]
    assert [given.size_on(kind) for kind in ("cpu", "cuda")] == [7, 7]
