"""The check of every field of a configuration by its annotation, when it is constructed."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from generalist_core.validation import (
    InvalidConfigError,
    excerpt,
    require_above_one,
    require_below_one,
    require_fraction,
    require_not_negative,
    require_one_of,
    require_positive,
)

T = TypeVar("T")
N = TypeVar("N", int, float)

Positive = Annotated[N, require_positive]
NotNegative = Annotated[N, require_not_negative]
Fraction = Annotated[float, require_fraction]
BelowOne = Annotated[float, require_below_one]
AboveOne = Annotated[float, require_above_one]
"""Numbers that keep a law, which is checked with the type of a field."""


def with_checked_fields(kind: type[T]) -> type[T]:
    """The class, whose instances check each field by its annotation before `__post_init__`.

    It stands below `@dataclass`. Numbers, truth values, text, names, further configurations, and
    tuples of them are checked: an int must be whole, a float finite, and a bool is no number.
    Numbers of numpy become Python's, and lists become tuples. A number also keeps the law that it
    is annotated with, such as `Positive[int]`.
    """
    further: Callable[[Any], None] | None = getattr(kind, "__post_init__", None)

    def __post_init__(self: Any) -> None:  # noqa: N807
        for name, annotation in field_types(self.__class__).items():
            value = getattr(self, name)
            plain = _plain(value, annotation, name)
            if plain is not value:
                object.__setattr__(self, name, plain)
            for require_law in _laws(self.__class__)[name] if plain is not None else ():
                require_law(name, plain)
        if further is not None:
            further(self)

    kind.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return kind


@functools.cache
def field_types(kind: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass, by its name, in the declared order."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def _laws(kind: Any) -> dict[str, list[Callable[[str, Any], None]]]:
    """The checks of the laws that each field is annotated with."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        name: [law for each in alternatives(hint) for law in getattr(each, "__metadata__", ())]
        for name, hint in hints.items()
    }


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows, such as `int` and `NoneType` of `int | None`."""
    return typing.get_args(annotation) if is_union(annotation) else (annotation,)


def is_union(annotation: Any) -> bool:
    """Whether an annotation allows several types, as in `int | None`."""
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


def _plain(value: Any, annotation: Any, name: str) -> Any:
    """`value` as Python's own type, if it is what the annotation says."""
    if is_union(annotation):
        if value is None and type(None) in typing.get_args(annotation):
            return None
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        if dataclasses.is_dataclass(members[0]):
            return _instance(value, members, name)
        is_sequence = isinstance(value, list | tuple)
        fits = [m for m in members if (typing.get_origin(m) is tuple) == is_sequence]
        annotation = (fits or members)[0]
    if dataclasses.is_dataclass(annotation):
        return _instance(value, [annotation], name)
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            raise InvalidConfigError(f"`{name}` must be a tuple, but got {name}={excerpt(value)}.")
        item = typing.get_args(annotation)[0]
        return tuple(_plain(each, item, f"{name}[{i}]") for i, each in enumerate(value))
    if typing.get_origin(annotation) is typing.Literal:
        require_one_of(name, value, typing.get_args(annotation))
        return value
    return _CHECKS[annotation](value, name) if annotation in _CHECKS else value


def _instance(value: Any, kinds: list[Any], name: str) -> Any:
    if not isinstance(value, tuple(kinds)):
        raise InvalidConfigError(
            f"`{name}` must be {' or '.join(kind.__name__ for kind in kinds)}, but got "
            f"{name}={excerpt(value)}."
        )
    return value


def _whole(value: Any, name: str) -> Any:
    if isinstance(value, bool) or not _is_a(numbers.Integral, value):
        raise InvalidConfigError(
            f"`{name}` must be a whole number, but got {name}={excerpt(value)}. Give an int."
        )
    if not -(2**63) <= value < 2**63:
        raise InvalidConfigError(
            f"`{name}` must be a number of 64 bits, but got {name}={excerpt(value)}."
        )
    return value if type(value) is int else int(value)


def _finite(value: Any, name: str) -> Any:
    if isinstance(value, bool) or not _is_a(numbers.Real, value) or not _is_finite(value):
        raise InvalidConfigError(
            f"`{name}` must be a finite number, but got {name}={excerpt(value)}. Give a float."
        )
    return value if type(value) in (int, float) else float(value)


def _is_a(kind: type, value: Any) -> bool:
    """Like `isinstance`, which would tell mypy that int is no `numbers.Integral`."""
    return isinstance(value, kind)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def _truth(value: Any, name: str) -> Any:
    if type(value).__name__ not in ("bool", "bool_"):  # numpy's is named `bool` or `bool_`
        raise InvalidConfigError(
            f"`{name}` must be True or False, but got {name}={excerpt(value)}."
        )
    return bool(value)


def _text(value: Any, name: str) -> Any:
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        raise InvalidConfigError(f"`{name}` must be text, but got {name}={excerpt(value)}.")
    return value


_CHECKS: dict[Any, Callable[[Any, str], Any]] = {
    int: _whole,
    float: _finite,
    bool: _truth,
    str: _text,
}
