"""Published results from a CSV, to be drawn beside a sweep's: other models, under other attacks.

Columns `name` and one for each of the first two objectives; what else there is, is shown as text.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from generalist_core.validation import InvalidConfigError, require


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """One published model: its name, accuracies in [0, 1], and what else the table says of it."""

    name: str
    accuracies: Mapping[str, float]
    about: Mapping[str, str]


def read_reference(path: Path, objectives: Sequence[str]) -> list[ReferencePoint]:
    """The rows of a CSV as accuracies in [0, 1].

    A table is in % if any of its accuracies is above 1; then those in (0, 1] cannot be told from
    shares, and are refused.

    Raises:
        InvalidConfigError: a column or a number is missing, or an accuracy is none.
    """
    drawn = objectives[:2]
    rows = list(_rows(path, ("name", *drawn)))
    numbers = [[_number(row[name], f"{path}, line {line}") for name in drawn] for line, row in rows]
    flat = [number for row in numbers for number in row]
    in_percent = any(number > 1 for number in flat)
    mixed = in_percent and any(0 < number <= 1 for number in flat)
    cure = "Write all in [0, 1], or all in %."
    require(not mixed, "accuracies in one unit", f"some in (0, 1] and some above in {path}", cure)
    scale = 0.01 if in_percent else 1.0
    return [
        ReferencePoint(
            name=row["name"],
            accuracies={name: scale * x for name, x in zip(drawn, values, strict=True)},
            about={k: v for k, v in row.items() if v and k not in {"name", *drawn}},
        )
        for (_, row), values in zip(rows, numbers, strict=True)
    ]


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Each row with its line, all of them as long as the head."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            cure = f"It needs the columns {', '.join(columns)}."
            require(not missing, "a column for each", f"no {', '.join(missing)} in {path}", cure)
            rows = []
            for row in reader:
                whole = None not in row and None not in row.values()
                require(whole, "as many cells as columns", f"{path}, line {reader.line_num}")
                rows.append((reader.line_num, row))
            return rows
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"`a CSV in UTF-8` must be given, but {path} is none.") from error


def _number(cell: str, origin: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 100:
        law = "an accuracy in [0, 1] or in %"
        raise InvalidConfigError(f"`{law}` must be given, but got {cell!r} in {origin}.")
    return number
