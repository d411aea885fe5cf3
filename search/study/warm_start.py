"""Observations that a sampler begins with: the study of another sweep, or a CSV."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from generalist_core.config import TrainConfig
from generalist_core.config.codec import to_dict
from generalist_core.validation import InvalidConfigError
from search.config import SweepConfig
from search.files import read_json
from search.folders import SweepFolder
from search.study.folder import open_sweep, read_request
from search.study.records import Observation

log = logging.getLogger(__name__)


def read_observations(path: Path, objectives: Sequence[str]) -> Iterator[Observation]:
    """Read the rows of a CSV with one column per objective.

    The other columns are parameters by name; a parameter with an empty cell is left out.

    Raises:
        InvalidConfigError: a column or a number is missing, an accuracy is outside [0, 1], or the
            table is one that a sweep writes about its points.
    """
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
        columns = reader.fieldnames or ()
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"{path} must be a CSV in UTF-8, but is not.") from error
    except csv.Error as error:
        raise InvalidConfigError(f"{path} must be a CSV, but: {error}.") from error
    if {"trial", "mixing_ratio"} <= set(columns):
        raise InvalidConfigError(
            f"A CSV of a warm start must have a column per parameter, but {path} is a table of the "
            "points of a sweep, which has none. Give the folder of that sweep."
        )
    twice = sorted(name for name, n in Counter(columns).items() if n > 1)
    if twice:
        raise InvalidConfigError(
            f"A CSV must have each column once, but {path} has {', '.join(twice)} more than once."
        )
    for origin, row in rows:
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
    if isinstance(value, bool) or not (isinstance(value, int | float) and 0 <= value <= 1):
        raise InvalidConfigError(f"`0 <= {name} <= 1` must hold, but got {cell!r} in {origin}.")
    return float(value)


def _value(cell: str) -> Any:
    """The JSON value in a cell; a text that is no JSON is itself the value."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def earlier_observations(path: Path, config: SweepConfig) -> list[Observation]:
    """The observations in the folder of another sweep, or in a CSV.

    Raises:
        InvalidConfigError: a row of the CSV is invalid, or the sweep has other objectives.
        SweepFolderError: the folder holds no sweep.
    """
    objectives = config.base.evaluation.objective_names
    if not path.is_dir():
        rows = list(read_observations(path, objectives))
        if not rows:
            raise InvalidConfigError(f"A CSV of a warm start must have rows, but {path} has none.")
        return rows
    results = open_sweep(path).results
    if results.objectives != objectives:
        raise InvalidConfigError(
            f"The sweep of a warm start must have the objectives {', '.join(objectives)}, but "
            f"{path} has {', '.join(results.objectives)}."
        )
    return results.observations(str(path))


def say_what_differs(warm_start: Sequence[str], base: TrainConfig, images: str) -> None:
    """Warn of sweeps that measured something else than `base` on the images of this digest."""
    for name in warm_start:
        if Path(name).is_dir():
            earlier = read_request(Path(name))
            differences = _differences(_measured(earlier.base), _measured(base))
            pinned = read_json(SweepFolder(Path(name)).request).get("pins", {})
            if not differences and pinned.get("images", images) != images:
                differences = [f"images of digest {pinned['images']} instead of {images}"]
            if differences:
                log.warning(
                    "The accuracies of a warm start should be those of this sweep's problem, but "
                    "%s had %s. The sampler takes them all the same.",
                    name,
                    ", ".join(differences),
                )


def _measured(base: TrainConfig) -> dict[str, Any]:
    """What accuracies are of, by path: the images, the model and the attacks."""
    whole = to_dict(base)
    data = {k: v for k, v in whole["data"].items() if k not in ("root", "download")}
    attacks = {named["name"]: named["attack"] for named in whole["evaluation"]["attacks"]}
    return _flat({"data": data, "model": whole["model"], "evaluation.attacks": attacks})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What was otherwise before, as `PATH=BEFORE instead of NOW`; of another kind only the type."""
    names = [name for name in dict.fromkeys([*now, *before]) if before.get(name) != now.get(name)]
    kinds = tuple(name.removesuffix("type") for name in names if name.endswith(".type"))
    return [
        f"{name}={before.get(name)} instead of {now.get(name)}"
        for name in names
        if name.endswith(".type") or not name.startswith(kinds)
    ]
