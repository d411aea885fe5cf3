"""What must hold for the folder of a sweep after a fault and at the end."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from generalist_core.config.mixing import GLOBAL
from search.cli.main import main
from search.files import load_sealed
from search.folders import SweepFolder
from search.study.folder import open_sweep
from search.study.storage import open_storage
from tests.helpers.problems import same_bits

FINAL = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a sweep: how each trial ended, and every operating point."""

    ends: dict[str, tuple[Any, ...]]
    points: dict[tuple[str, Any], tuple[float, ...]]


def study_of(folder: Path) -> list[FrozenTrial]:
    """The trials in a sweep's journal, read without the ledger."""
    storage = open_storage(None, SweepFolder(folder).journal)
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    return study.get_trials(deepcopy=False)


def outcome(folder: Path) -> Outcome:
    """The outcome of a sweep so far."""
    asked, _ = _parted(study_of(folder))
    ended = [trial for trial in asked if trial.state in FINAL]
    points = {
        (point.trial, point.mixing_ratio): tuple(point.accuracies.values())
        for point in open_sweep(folder).results.points()
    }
    return Outcome(ends={trial.user_attrs["trial"]: _end(trial) for trial in ended}, points=points)


def _end(trial: FrozenTrial) -> tuple[Any, ...]:
    attributes = trial.user_attrs
    why = attributes.get("failure", {}).get("kind")
    params = tuple(sorted(trial.params.items()))
    return trial.state.name, params, tuple(trial.values or ()), attributes.get("stopped_at"), why


def _parted(trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The trials that were asked for, and their siblings."""
    named = [trial for trial in trials if "trial" in trial.user_attrs]
    siblings = [trial for trial in named if "sibling" in trial.user_attrs]
    return [trial for trial in named if "sibling" not in trial.user_attrs], siblings


def unlawful(folder: Path, n_trials: int) -> list[str]:
    """What breaks law 7 in a sweep that has ended successfully."""
    asked, siblings = _parted(study_of(folder))
    names = Counter(trial.user_attrs["trial"] for trial in asked)
    wrong = [f"{n} times trial {name}" for name, n in names.items() if n > 1]
    wanted = {f"{number:04d}" for number in range(n_trials)}
    wrong += [f"trial {name} is lost" for name in sorted(wanted - set(names))]
    wrong += [f"trial {name} was not asked for" for name in sorted(set(names) - wanted)]
    open_ones = [trial for trial in asked if trial.state not in FINAL]
    wrong += [f"trial {t.user_attrs['trial']} is {t.state.name}" for t in open_ones]
    completed = [trial for trial in asked if trial.state == TrialState.COMPLETE]
    expected = Counter(
        (t.user_attrs["trial"], str(p["mixing_ratio"])) for t in completed for p in _rest(t)
    )
    found = Counter((t.user_attrs["trial"], str(t.user_attrs["mixing_ratio"])) for t in siblings)
    if found != expected:
        wrong.append(f"siblings {found - expected} too many, {expected - found} missing")
    return wrong


def _rest(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The other mixtures; the global learner has no ratio, and no sibling."""
    attributes = trial.user_attrs
    return [
        point
        for point in attributes["points"]
        if point["mixing_ratio"] not in (attributes["mixing_ratio"], GLOBAL)
    ]


def taken_back(before: Outcome, after: Outcome) -> list[str]:
    """What had been reached before and is lost or different now."""
    ends = [name for name, end in before.ends.items() if after.ends.get(name) != end]
    points = [key for key, values in before.points.items() if after.points.get(key) != values]
    wrong = [f"trial {name} had ended differently" for name in ends]
    return wrong + [f"point {key} had other accuracies" for key in points]


def unequal(found: Outcome, expected: Outcome) -> list[str]:
    """Where a sweep differs from an undisturbed one, even by a single bit."""
    wrong = [f"{part} in the undisturbed sweep" for part in taken_back(expected, found)]
    extra = set(found.points) - set(expected.points)
    return wrong + [
        f"point {key} is not in the undisturbed sweep" for key in sorted(extra, key=str)
    ]


def unreadable(folder: Path) -> list[str]:
    """What is wrong with the commands that read a sweep."""
    code, printed = run_here("front", str(folder), "--json")
    if code != 0:
        return [f"front exits with {code}: {printed}"]
    try:
        json.loads(printed)
    except ValueError:
        return [f"front --json prints no JSON: {printed}"]
    return []


def unreported(folder: Path) -> list[str]:
    """What is wrong with the report of a sweep that has ended."""
    wrong = unreadable(folder)
    code, printed = run_here("report", str(folder))
    if code != 0:
        return [*wrong, f"report exits with {code}: {printed}"]
    return [*wrong, *left_over(folder)]


def left_over(folder: Path) -> list[str]:
    """What is wrong with the files of a sweep that has ended."""
    wrong, place = list[str](), SweepFolder(folder)
    document = json.loads(place.front_json.read_text())
    front = open_sweep(folder).front
    if document["hypervolume"] != front.hypervolume:
        wrong.append("front.json is not the front of the study")
    weights = {point.trial: place.trial(point.trial).averages for point in front.points}
    wrong += [f"no weights of {name}" for name, path in weights.items() if not path.is_file()]
    wrong += [f"checkpoint left: {path}" for path in folder.glob("trials/*/checkpoint.pt")]
    parts = [*folder.glob(".*.*"), *folder.glob("*/.*.*"), *folder.glob("trials/*/.*.*")]
    return wrong + [f"part of a file left: {path}" for path in parts]


def unlike_weights(folder: Path, expected: Path) -> list[str]:
    """The trials on the front whose weights differ from those of an undisturbed sweep."""
    names = {
        path.parent.name
        for place in (folder, expected)
        for path in place.glob("trials/*/averages.pt")
    }
    return [
        f"weights of {name} differ" for name in sorted(names) if _differ(name, folder, expected)
    ]


def _differ(name: str, *folders: Path) -> bool:
    paths = [SweepFolder(folder).trial(name).averages for folder in folders]
    if not all(path.is_file() for path in paths):
        return True
    one, other = (load_sealed(path, name) for path in paths)
    return not same_bits(one, other)


def run_here(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; returns its exit code and what it printed."""
    printed, told = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(told),
        warnings.catch_warnings(),
    ):
        code = main(list(arguments))
    return code, printed.getvalue() if code == 0 else " ".join(told.getvalue().split())
