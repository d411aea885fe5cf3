"""A small fault drill, and checks that see each kind of problem."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from optuna.trial import TrialState, create_trial

from generalist_core.data.datasets import load_dataset
from search.files import load_tensors, save_sealed
from search.folders import SweepFolder
from search.running.trial import TrialRun, read_metrics
from search.study.folder import open_sweep
from tests.drill.alone import differing, digests, misread
from tests.drill.checks import (
    outcome,
    taken_back,
    unequal,
    unlawful,
    unlike_weights,
    unreadable,
    unreported,
)
from tests.drill.damages import CHANGES
from tests.drill.drill import Drill, in_pairs, plan, seed_that_plants
from tests.drill.faults import DISTURBANCES, PLANTED, PLANTS
from tests.drill.single import SINGLES, Scene, change, edit_request, replace
from tests.drill.sweeps import REQUESTS, Driver
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import tiny_config


@pytest.mark.slow
def test_a_sweep_survives_four_faults(tmp_path: Path) -> None:
    kinds = {fault.kind: fault for fault in DISTURBANCES}
    # A killed driver's Ray takes a minute to end: it does so while the other faults strike.
    names = ("SIGKILL of the driver", "SIGKILL of a worker", "SIGTERM", "torn study.journal")
    short = dataclasses.replace(REQUESTS[0], trials=4)
    drill = Drill(tmp_path, seed=1, workers=2, requests=[short])
    drill.run([kinds[name] for name in names], plants=[], singles=[])
    assert drill.tally.problems == []
    assert drill.tally.count == dict.fromkeys(names, 1)


@pytest.mark.slow
def test_small_sweeps_survive_a_dozen_faults(tmp_path: Path) -> None:
    drill = Drill(tmp_path, seed=1)
    drill.run([], plants=[], singles=Random(1).sample(SINGLES, 12))
    assert drill.tally.problems == []
    assert sum(drill.tally.count.values()) == 12


def test_each_kind_is_chosen_once_before_any_is_chosen_twice(tmp_path: Path) -> None:
    faults, plants, singles = plan(2000, Random(0), tmp_path)
    n_kinds = len(set(faults)) + len(PLANTED) + len(SINGLES)
    assert n_kinds > 400
    assert len(plants) == len(PLANTED)
    counts = Counter(fault.kind for fault in (*faults, *singles))
    assert set(counts.values()) <= {2000 // n_kinds, 2000 // n_kinds + 1}
    assert {fault.kind for fault in (*faults, *singles)} == set(counts)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_something(name: str) -> None:
    content = b'{"epoch": 1}\n{"epoch": 2}\n'
    for seed in range(100):
        assert CHANGES[name](content, Random(seed)) != content


def test_a_damage_is_undone_and_a_change_of_a_file_is_seen(copied: Path, finished: Path) -> None:
    scene = Scene(folder=copied, finished=finished, killed=finished, rng=Random(0), begin=Driver)
    before = digests(copied)
    change(scene, "study.journal", "the end cut off")
    replace(scene, "trials/*/points.json", "a folder instead")
    edit_request(scene, "request.base.seed")
    assert len(differing(before, digests(copied))) == 3
    assert misread(copied) == []
    scene.mend()
    assert differing(before, digests(copied)) == []


@pytest.fixture(scope="module")
def finished(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of(two_trials, tmp_path_factory.mktemp("finished") / "sweep").folder
    for checkpoint in folder.glob("trials/*/checkpoint.pt"):
        checkpoint.unlink()
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "sweep")
    return tmp_path / "sweep"


def test_a_sweep_that_lacks_nothing_passes(finished: Path) -> None:
    assert unlawful(finished, 2) == []
    assert unreported(finished) == []
    assert unequal(outcome(finished), outcome(finished)) == []
    assert unlike_weights(finished, finished) == []


def test_a_trial_that_is_lost_is_seen(finished: Path) -> None:
    assert unlawful(finished, 3) == ["trial 0002 is lost"]
    assert unlawful(finished, 1) == ["trial 0001 was not asked for"]


def test_a_trial_that_does_not_end_is_seen(copied: Path) -> None:
    study = open_sweep(copied).ledger.study
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"trial": "0002"}))
    assert unlawful(copied, 3) == ["trial 0002 is RUNNING"]


def test_a_trial_or_a_point_that_is_there_twice_is_seen(copied: Path) -> None:
    study = open_sweep(copied).ledger.study
    sibling = next(trial for trial in study.get_trials() if "sibling" in trial.user_attrs)
    study.add_trial(sibling)
    (problem,) = unlawful(copied, 2)
    assert problem.startswith("siblings Counter({('0000'")
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={"trial": "0001"}))
    assert unlawful(copied, 2) == ["2 times trial 0001", problem]


def test_another_accuracy_is_seen(finished: Path) -> None:
    expected = outcome(finished)
    (key, (natural, robust)), *_ = expected.points.items()
    points = {**expected.points, key: (natural + 2**-50, robust)}
    found = dataclasses.replace(expected, points=points)
    assert unequal(found, expected) == [
        f"point {key} had other accuracies in the undisturbed sweep"
    ]
    fewer = {name: end for name, end in expected.ends.items() if name != "0001"}
    assert taken_back(expected, dataclasses.replace(expected, ends=fewer)) == [
        "trial 0001 had ended differently"
    ]


def test_another_weight_is_seen(copied: Path, finished: Path) -> None:
    path = min(copied.glob("trials/*/averages.pt"))
    averages, trial = load_tensors(path), path.parent.name
    state = next(filter(None, averages.values()))
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.nextafter(state[name], torch.full_like(state[name], 9.0))
    save_sealed(path, averages, trial)
    assert unlike_weights(copied, finished) == [f"weights of {trial} differ"]


def test_what_cannot_be_read_is_seen(copied: Path) -> None:
    SweepFolder(copied).trial("0000").checkpoint.touch()
    (copied / "trials" / "0000" / ".points.json.a1").touch()
    assert [problem.split(":")[0] for problem in unreported(copied)] == [
        "checkpoint left",
        "part of a file left",
    ]
    SweepFolder(copied).journal.write_bytes(b"[]\n")
    assert "line 1 is damaged" in unreadable(copied)[0]


def test_damages_follow_faults_that_end_a_sweep() -> None:
    ordered = in_pairs(Random(0).sample(DISTURBANCES, len(DISTURBANCES)))
    assert set(ordered) == set(DISTURBANCES)
    places = [place for place, fault in enumerate(ordered) if fault.damage is not None]
    assert all(ordered[place - 1].damage is None for place in places)


def test_every_plant_is_proposed(tmp_path: Path) -> None:
    space = tmp_path / "plants.py"
    space.write_text(PLANTS.format(choices=["nothing", *PLANTED]))
    assert seed_that_plants(f"{space}:space", list(PLANTED), 12) >= 0


def test_a_trial_resumes_after_half_a_line_of_metrics(tmp_path: Path) -> None:
    """Found by the drill: appending to it made a damaged line, which `resume` could not read."""
    config = tiny_config()
    data = load_dataset(config.data)
    TrialRun(tmp_path / "0000", config, data).advance()
    with (tmp_path / "0000" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "loss/nat')
    resumed = TrialRun(tmp_path / "0000", config, data)
    while not resumed.is_done:
        resumed.advance()
    assert [line["epoch"] for line in read_metrics(tmp_path / "0000")] == [1, 2]
