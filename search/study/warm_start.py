"""Observations of earlier work, for a sampler to begin with: another sweep's study, or a CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from generalist_core.validation import InvalidConfigError, require
from search.config import SweepConfig
from search.study.folder import open_sweep
from search.study.records import Observation


def read_observations(path: Path, objectives: Sequence[str]) -> Iterator[Observation]:
    """The rows of a CSV: one column an objective, the others parameters by name; empty cells none.

    Raises:
        InvalidConfigError: a column or a number is missing, or an accuracy is outside [0, 1].
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"`a CSV in UTF-8` must be given, but {path} is none.") from error
    for number, row in enumerate(csv.DictReader(lines), 2):
        origin = f"{path}, line {number}"
        require(None not in row, "as many cells as columns", origin)
        missing = [name for name in objectives if not row.get(name)]
        require(not missing, "a column for each objective", f"no {missing} in {origin}")
        accuracies = {name: _accuracy(row.pop(name), name, origin) for name in objectives}
        params = {name: _value(cell) for name, cell in row.items() if cell}
        yield Observation(params=params, accuracies=accuracies, origin=origin)


def _accuracy(cell: str, name: str, origin: str) -> float:
    value = _value(cell)
    fits = isinstance(value, int | float) and 0 <= value <= 1
    if not fits:
        raise InvalidConfigError(f"`0 <= {name} <= 1` must hold, but got {cell!r} in {origin}.")
    return float(value)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def earlier_observations(path: Path, config: SweepConfig) -> list[Observation]:
    """What a sweep's folder or a CSV has to say about this sweep's objectives."""
    objectives = config.base.evaluation.objectives
    if not path.is_dir():
        return list(read_observations(path, objectives))
    ledger = open_sweep(path).ledger
    same = ledger.results.objectives == objectives
    require(same, "a warm start with the same objectives", f"{ledger.results.objectives} in {path}")
    return ledger.results.observations(str(path))
