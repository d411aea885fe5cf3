"""What the texts of options mean: numbers, radii, names, norms, and the values of fields."""

from __future__ import annotations

import contextlib
import re
from types import NoneType
from typing import Any

import click

from generalist_core.config import NORMS, Norm
from generalist_core.config.codec import parsed
from generalist_core.config.fields import alternatives
from generalist_core.validation import InvalidConfigError

FRACTION = re.compile(r"([\d.]+)\s*/\s*([\d.]+)")


def number(text: str) -> float:
    """The number that is written as `0.03` or as a fraction such as `8/255`.

    Raises:
        ValueError: it is neither.
    """
    if (fraction := FRACTION.fullmatch(text.strip())) is None:
        return float(text)
    above, below = map(float, fraction.groups())
    if below == 0:
        raise ValueError
    return above / below


def radius(text: str) -> float:
    """The radius of an attack that is written as `number` reads it."""
    try:
        return number(text)
    except ValueError as error:
        raise click.BadParameter(
            f"It must be a number or a fraction such as 8/255, but got {text!r}."
        ) from error


def names(text: str) -> list[str]:
    """The names in `a,b`."""
    return text.split(",")


def norms(text: str) -> dict[Norm, float | None]:
    """The norms in `linf,l2` or `linf=8/255,l2=0.5`, with the radii that are given."""
    radii: dict[Norm, float | None] = {}
    for part in names(text):
        name, equals, length = part.partition("=")
        if name not in NORMS or name in radii:
            raise click.BadParameter(
                f"It must name each of {', '.join(NORMS)} at most once, with or without its "
                f"radius, as in linf=8/255,l2, but got {text!r}."
            )
        radii[name] = radius(length) if equals else None
    return radii


def written_value(text: str, annotation: Any) -> Any:
    """The value that a text means for a field: the text itself where the field is one, else JSON.

    In quotes, a text is JSON too; `null` is None where the field may be, and a number may be a
    fraction such as `8/255`. What is none of these is left to be refused, or is a name: `AdamW`.
    """
    members = alternatives(annotation)
    if text == "null" and NoneType in members:
        return None
    value: Any = text
    with contextlib.suppress(InvalidConfigError):
        value = parsed(text)
    if str in members:
        return value if isinstance(value, str) else text
    with contextlib.suppress(ValueError):
        return number(text) if float in members and FRACTION.fullmatch(text) else value
    return value
