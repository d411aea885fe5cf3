"""Published results from a CSV, to be drawn beside those of a sweep: other models, other attacks.

The CSV has a column `name` and one for each of the first two objectives; all other columns are
shown as text.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generalist_core.validation import InvalidConfigError


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """One published model: its name, its accuracies in [0, 1], and the other columns."""

    name: str
    accuracies: Mapping[str, float]
    details: Mapping[str, str]


def read_reference(path: Path, objectives: Sequence[str]) -> list[ReferencePoint]:
    """The rows of a CSV as accuracies in [0, 1].

    A table is in % if any of its accuracies is above 1; then accuracies in (0, 1] are ambiguous,
    and are refused.

    Raises:
        InvalidConfigError: a column or a number is missing, or an accuracy is out of range.
    """
    drawn = objectives[:2]
    rows = list(_rows(path, ("name", *drawn)))
    numbers = [[_number(row[name], f"{path}, line {line}") for name in drawn] for line, row in rows]
    flat = [number for row in numbers for number in row]
    in_percent = any(number > 1 for number in flat)
    if in_percent and any(0 < number <= 1 for number in flat):
        raise InvalidConfigError(
            f"All accuracies in {path} must be in the same unit, but some are in (0, 1] and some "
            "are above 1. Write all in [0, 1], or all in %."
        )
    scale = 0.01 if in_percent else 1.0
    return [
        ReferencePoint(
            name=row["name"],
            accuracies={name: scale * x for name, x in zip(drawn, values, strict=True)},
            details={k: v for k, v in row.items() if v and k not in {"name", *drawn}},
        )
        for (_, row), values in zip(rows, numbers, strict=True)
    ]


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Each row with the number of its line; all rows are as long as the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InvalidConfigError(
                    f"{path} must have the columns {', '.join(columns)}, "
                    f"but has no {', '.join(missing)}."
                )
            rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"{path} must be a CSV in UTF-8, but is not UTF-8.") from error
    except csv.Error as error:
        raise InvalidConfigError(f"{path} must be a CSV, but: {error}.") from error
    for line, row in rows:
        if None in row or None in row.values():
            raise InvalidConfigError(
                f"A row must have as many cells as the header, but line {line} of {path} has "
                f"{'more' if None in row else 'fewer'}."
            )
    return rows


def _number(cell: str, origin: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 100:
        raise InvalidConfigError(
            f"An accuracy must be a number in [0, 1] or in %, but got {cell!r} in {origin}."
        )
    return number
