"""What every field of a configuration must take and refuse, by its annotation."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generalist_core.config.fields import alternatives, field_types
from generalist_core.validation import InvalidConfigError

WRONG: dict[type, list[Any]] = {
    int: [2.5, 2.0, True, "2", math.nan, math.inf, None, np.float64(2), np.bool_(True), [2], {}],
    float: [math.nan, math.inf, -math.inf, True, "0.1", None, 10**400, np.float32("nan"), 1j, {}],
    bool: [1, 0, "no", None, []],
    str: [1, None, b"digits", True, 0.5, ["a"]],
}
"""By type, values that are of no such type."""

OTHER = [math.nan, "unknown", 1, True, object()]
"""What is no configuration, no choice and no tuple."""

Case = tuple[Any, str, Any]
"""A class, one of its fields, and the annotation of that field."""

Required = Mapping[str, dict[str, Any]]
"""What each class cannot be built without, by its name."""


def cases(classes: Iterable[Any]) -> list[Case]:
    """Every field of the classes."""
    return [(kind, *declared) for kind in classes for declared in field_types(kind).items()]


def label(case: Case) -> str:
    """The name of the class and of the field."""
    return f"{case[0].__name__}.{case[1]}"


def refusal_of_others(classes: Iterable[Any], required: Required) -> Callable[..., None]:
    """The test that a value of another type is refused by the name of its field."""

    @pytest.mark.parametrize("case", cases(classes), ids=label)
    def check(case: Case) -> None:
        kind, name, annotation = case
        wrong = _wrong(annotation)
        assert len(wrong) >= 2
        for value in wrong:
            with pytest.raises(InvalidConfigError, match=rf"`{name}.*` must be .*, but got"):
                kind(**{**required.get(kind.__name__, {}), name: value})

    return check


def acceptance_of_own(classes: Iterable[Any], required: Required) -> Callable[..., None]:
    """The test that a field takes the value that it has, as numpy and JSON write it too."""

    @pytest.mark.parametrize("case", cases(classes), ids=label)
    def check(case: Case) -> None:
        kind, name, _ = case
        needed = required.get(kind.__name__, {})
        plain = kind(**needed)
        for value in _written(getattr(plain, name)):
            again = kind(**{**needed, name: value})
            assert again == plain
            assert not isinstance(getattr(again, name), np.generic | list | Path)

    return check


def _wrong(annotation: Any) -> list[Any]:
    members = alternatives(annotation)
    wrong = [value for member in members for value in _wrong_for(member)]
    if float in members:  # a mixing ratio is a tuple or a number
        wrong = [value for value in wrong if type(value) is not int or value != 1]
    return [value for value in wrong if not (value is None and type(None) in members)]


def _wrong_for(member: Any) -> list[Any]:
    if typing.get_origin(member) is tuple:
        return [*OTHER, *((value,) for value in _wrong(typing.get_args(member)[0]))]
    if dataclasses.is_dataclass(member) or typing.get_origin(member) is typing.Literal:
        return [*OTHER, None]
    return WRONG.get(member, [])


def _written(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [value, np.bool_(value)]
    if isinstance(value, int):
        return [value, np.int64(value)]
    if isinstance(value, float):
        return [value, np.float64(value), *([int(value)] if value.is_integer() else [])]
    if isinstance(value, tuple):
        return [value, list(value)]
    return [value, Path(value)] if value == "data" else [value]
