"""How numbers and names are written in messages and reports."""

from __future__ import annotations

import shlex
import unicodedata
from typing import Any

PROGRAM = "generalist-search"
"""The command as it is typed."""

UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0}
"""Units of time in seconds, the largest first."""


def plural(n: int, noun: str) -> str:
    """A number with its noun: `1 epoch`, `2 epochs`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def command_text(*words: object) -> str:
    """A command as it is typed in a shell, with quotes where a word needs them."""
    return shlex.join(map(str, words))


def printable(text: str) -> str:
    r"""The text with an escape such as `\x1b` for each character that a terminal obeys or hides.

    Line breaks and tabs stay. Names, paths and messages of others may hold any character.
    """
    return "".join(_escaped(c) if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    return (category.startswith("C") or category in ("Zl", "Zp")) and character not in "\n\t"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def value_text(value: Any) -> str:
    """A value in four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def time_unit(seconds: float) -> tuple[str, float]:
    """The largest unit that is contained at least twice, and its seconds."""
    return next(((unit, s) for unit, s in UNITS.items() if seconds >= 2 * s), ("s", 1.0))


def duration(seconds: float) -> str:
    """A time in its unit: `90 s`, `2.5 min`."""
    unit, size = time_unit(seconds)
    return f"{seconds / size:.{0 if unit == 's' else 1}f} {unit}"
