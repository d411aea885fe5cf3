"""Checks of input, whose messages state the law, then the value that breaks it, then the cure."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Collection


class InvalidConfigError(ValueError):
    """A value that breaks a law, raised before anything is done with it."""


class EvaluationError(RuntimeError):
    """An evaluation that broke a law: its measurements must not be reported."""


class _Excerpt(reprlib.Repr):
    """Values as Python writes them, of which what is long or deep is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlong = 6, 60
        self.maxstring = self.maxother = 500
        self.maxlist = self.maxtuple = self.maxdict = 20


excerpt = _Excerpt().repr
"""A value of somebody else's in a message, of whatever length and depth."""


def require(holds: bool, law: str, got: str, cure: str = "") -> None:
    """Raise InvalidConfigError unless `holds`; `law` is an expression such as `low <= high`."""
    if not holds:
        raise InvalidConfigError(f"`{law}` must hold, but got {got}.{' ' + cure if cure else ''}")


def require_positive(name: str, value: float) -> None:
    """Check `value > 0`, and that it is finite."""
    require(0 < value < math.inf, f"{name} > 0", f"{name}={value}")


def require_not_negative(name: str, value: float) -> None:
    """Check `value >= 0`."""
    require(value >= 0, f"{name} >= 0", f"{name}={value}")


def require_fraction(name: str, value: float) -> None:
    """Check `0 <= value <= 1`."""
    require(0 <= value <= 1, f"0 <= {name} <= 1", f"{name}={value}")


def require_below_one(name: str, value: float) -> None:
    """Check `0 <= value < 1`."""
    require(0 <= value < 1, f"0 <= {name} < 1", f"{name}={value}")


def require_above_one(name: str, value: float) -> None:
    """Check `value > 1`."""
    require(value > 1, f"{name} > 1", f"{name}={value}")


def require_one_of(name: str, value: str, known: Collection[str]) -> None:
    """Check that `value` is a known name."""
    if value not in known:
        cure = did_you_mean(value, known)
        raise InvalidConfigError(
            f"`{name}` must be one of {', '.join(known)}, but got {excerpt(value)}.{cure}"
        )


def did_you_mean(value: object, known: Collection[str]) -> str:
    """The sentence that names the known name nearest to `value`; empty if none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(excerpt(value).strip("'").lower(), by_lower, n=1)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""
