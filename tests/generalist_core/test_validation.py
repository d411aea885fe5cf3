"""Messages state the law, the value that breaks it, and the cure."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from generalist_core.validation import (
    InvalidConfigError,
    did_you_mean,
    require,
    require_above_one,
    require_below_one,
    require_fraction,
    require_not_negative,
    require_one_of,
    require_positive,
)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: require(False, "a < b", "a=2"), "`a < b` must hold, but got a=2."),
        (
            lambda: require(False, "a < b", "a=2", "Try 1."),
            "`a < b` must hold, but got a=2. Try 1.",
        ),
        (lambda: require_positive("a", 0), "`a > 0` must hold, but got a=0."),
        (lambda: require_positive("a", math.nan), "`a > 0` must hold, but got a=nan."),
        (lambda: require_positive("a", math.inf), "`a > 0` must hold, but got a=inf."),
        (lambda: require_not_negative("a", -1), "`a >= 0` must hold, but got a=-1."),
        (lambda: require_not_negative("a", math.nan), "`a >= 0` must hold, but got a=nan."),
        (lambda: require_fraction("a", 1.5), "`0 <= a <= 1` must hold, but got a=1.5."),
        (lambda: require_fraction("a", math.nan), "`0 <= a <= 1` must hold, but got a=nan."),
        (lambda: require_below_one("a", 1), "`0 <= a < 1` must hold, but got a=1."),
        (lambda: require_above_one("a", 1), "`a > 1` must hold, but got a=1."),
        (lambda: require_one_of("a", "z", ("x", "y")), "`a` must be one of x, y, but got 'z'."),
    ],
)
def test_a_broken_law_is_stated(check: Callable[[], None], message: str) -> None:
    with pytest.raises(InvalidConfigError) as error:
        check()
    assert str(error.value) == message


def test_a_law_that_holds_is_silent_up_to_its_bounds() -> None:
    require(True, "a < b", "a=1")
    require_positive("a", 5e-324)
    require_not_negative("a", 0)
    require_fraction("a", 0)
    require_fraction("a", 1)
    require_below_one("a", 0)
    require_above_one("a", 1.1)
    require_one_of("a", "x", ("x", "y"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("resnet", "resnet18"),
        ("ADAMW", "AdamW"),
        ("adam", "Adam"),
        ("mnist", ""),
        (7, ""),
        ("", ""),
    ],
)
def test_the_nearest_known_name_is_said(value: object, said: str) -> None:
    sentence = f" Did you mean {said}?" if said else ""
    assert did_you_mean(value, ("resnet18", "Adam", "AdamW")) == sentence
