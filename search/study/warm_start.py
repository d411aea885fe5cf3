"""Observations that a sampler begins with: the study of another sweep, or a CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.study.folder import open_sweep
from search.study.records import Observation


def read_observations(path: Path, objectives: Sequence[str]) -> Iterator[Observation]:
    """Read the rows of a CSV with one column per objective.

    The other columns are parameters by name; a parameter with an empty cell is left out.

    Raises:
        InvalidConfigError: a column or a number is missing, an accuracy is outside [0, 1], or the
            table is one that a sweep writes about its points.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"{path} must be a CSV in UTF-8, but is not.") from error
    rows = csv.DictReader(lines)
    if {"trial", "mixing_ratio"} <= set(rows.fieldnames or ()):
        raise InvalidConfigError(
            f"A CSV of a warm start must have a column per parameter, but {path} is a table of the "
            "points of a sweep, which has none. Give the folder of that sweep."
        )
    for number, row in enumerate(rows, 2):
        origin = f"{path}, line {number}"
        if None in row:
            raise InvalidConfigError(
                f"A row must have as many cells as there are columns, but {origin} has more."
            )
        missing = [name for name in objectives if not row.get(name)]
        if missing:
            raise InvalidConfigError(
                "A CSV must have a column for each objective, and a number in it, but "
                f"{', '.join(missing)} is missing in {origin}."
            )
        accuracies = {name: _accuracy(row.pop(name), name, origin) for name in objectives}
        params = {name: _value(cell) for name, cell in row.items() if cell}
        yield Observation(params=params, accuracies=accuracies, origin=origin)


def _accuracy(cell: str, name: str, origin: str) -> float:
    value = _value(cell)
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise InvalidConfigError(f"`0 <= {name} <= 1` must hold, but got {cell!r} in {origin}.")
    return float(value)


def _value(cell: str) -> Any:
    """The JSON value in a cell; a text that is no JSON is itself the value."""
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def earlier_observations(path: Path, config: SweepConfig) -> list[Observation]:
    """The observations in the folder of another sweep, or in a CSV.

    Raises:
        InvalidConfigError: a row of the CSV is invalid, or the sweep has other objectives.
        SweepFolderError: the folder holds no sweep.
    """
    objectives = config.base.evaluation.objectives
    if not path.is_dir():
        return list(read_observations(path, objectives))
    results = open_sweep(path).results
    if results.objectives != objectives:
        raise InvalidConfigError(
            f"The sweep of a warm start must have the objectives {', '.join(objectives)}, but "
            f"{path} has {', '.join(results.objectives)}."
        )
    return results.observations(str(path))
