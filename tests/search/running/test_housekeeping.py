"""What stays on disk: what is needed to resume and to make the mixtures on the front."""

from __future__ import annotations

import dataclasses
import io
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from generalist_core.config import Adam, DataConfig, ModelConfig
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset
from generalist_core.models.build import build_model
from generalist_core.models.state import averaged_tensors
from search.api.sweep import sweep
from search.config import Resources, SweepConfig, WarmupConfig
from search.files import disk_bytes
from search.front.front import Front
from search.lease import leased
from search.running.housekeeping import (
    Housekeeping,
    Room,
    free_bytes,
    removable,
    remove_leftovers,
    room_needed,
)
from search.study.ledger import Ledger
from search.study.records import Proposal
from spaces import SPACES
from tests.helpers.ledgers import COST, LOW, PLANTED, new_ledger, release

FILES = ("config.json", "checkpoint.pt", "averages.pt")


def asked(ledger: Ledger, trials: Path) -> Proposal:
    """A running trial with its files."""
    proposal = ledger.ask(SPACES["smoke"], short())
    folder = trials / proposal.trial
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"content")
    return proposal


def complete(ledger: Ledger, proposal: Proposal, *accuracies: float) -> None:
    """Complete a trial whose mixtures are all the same."""
    named = dict(zip(ledger.results.objectives, accuracies, strict=True))
    points = [dataclasses.replace(point, accuracies=named) for point in release(proposal)]
    ledger.tell_released(proposal.trial, points, COST)


def there(trials: Path, name: str) -> set[str]:
    return {path.parent.name for path in trials.glob(f"*/{name}")}


def test_averages_stay_while_the_front_needs_them(tmp_path: Path) -> None:
    """And those of running trials, whatever their result will be."""
    ledger, keeping = new_ledger(), Housekeeping(tmp_path)
    running = asked(ledger, tmp_path)
    story = [
        ((0.5, 0.5), {"0001"}),
        ((0.4, 0.6), {"0001", "0002"}),
        ((0.4, 0.4), {"0001", "0002"}),
        ((0.5, 0.5), {"0001", "0002"}),
        ((0.6, 0.5), {"0002", "0005"}),
        ((0.7, 0.7), {"0006"}),
    ]
    for accuracies, on_front in story:
        proposal = asked(ledger, tmp_path)
        complete(ledger, proposal, *accuracies)
        keeping.on_completed(proposal.trial, [], ledger.results)
        assert {point.trial for point in ledger.results.front().points} == on_front
        assert there(tmp_path, "averages.pt") == on_front | {running.trial}
        assert there(tmp_path, "checkpoint.pt") == {running.trial}
    assert there(tmp_path, "config.json") == {f"{number:04d}" for number in range(7)}


def test_the_front_can_be_made_from_what_is_kept(tmp_path: Path) -> None:
    """In whatever order trials end: a point that has left the front never comes back."""
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        trials = tmp_path / str(order)
        ledger, keeping = new_ledger(), Housekeeping(trials)
        proposals = [asked(ledger, trials) for _ in range(4)]
        accuracies = [(0.2, 0.9), (0.5, 0.5), (0.6, 0.6), (0.9, 0.1)]
        for number in order:
            complete(ledger, proposals[number], *accuracies[number])
            keeping.on_completed(proposals[number].trial, [], ledger.results)
        expected = Front.of(ledger.results.points(), ledger.results.objectives)
        assert there(trials, "averages.pt") == {point.trial for point in expected.points}


def test_a_trial_that_ended_badly_is_not_resumed(tmp_path: Path) -> None:
    ledger, keeping = new_ledger(), Housekeeping(tmp_path)
    failed, stopped = asked(ledger, tmp_path), asked(ledger, tmp_path)
    ledger.tell_failed(failed.trial, PLANTED)
    keeping.on_failed(failed.trial, PLANTED, ledger.results)
    assert there(tmp_path, "checkpoint.pt") == {stopped.trial}
    ledger.tell_stopped(stopped.trial, 1, COST, LOW)
    keeping.on_stopped(stopped.trial, 1, ledger.results)
    assert not there(tmp_path, "checkpoint.pt")
    assert there(tmp_path, "config.json") == {failed.trial, stopped.trial}
    keeping.on_failed("0099", PLANTED, ledger.results)


def test_what_a_crash_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ledger = new_ledger()
    ended, running = asked(ledger, tmp_path / "trials"), asked(ledger, tmp_path / "trials")
    ledger.tell_failed(ended.trial, PLANTED)
    keep = [".lease.break.1", "sweep.json", "study.journal"]
    aside = "0123456789abcdef"
    parts = [
        f".sweep.json.{aside}",
        f"trials/{running.trial}/.checkpoint.pt.{aside}",
    ]
    for name in (*keep, *parts):
        (tmp_path / name).write_bytes(b"content")
    remove_leftovers(tmp_path, ledger.results)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {f"trials/{trial.trial}/{name}" for trial in (ended, running) for name in FILES}
    assert left == {*keep, *kept} - {f"trials/{ended.trial}/checkpoint.pt"}


def test_trials_that_the_study_does_not_have_are_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their names will be given again, to trials that must not find their files."""
    ledger = new_ledger()
    known = asked(ledger, tmp_path / "trials").trial
    for name in ("trials/0007", f"repeats/{known}-1", "repeats/0007-2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "points.json").touch()
    remove_leftovers(tmp_path, ledger.results)
    left = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")}
    lost = sorted(name.rpartition("-")[0] for name in left if name.startswith("lost/"))
    assert lost == ["lost/repeats-0007-2", "lost/trials-0007"]
    assert len(left) == 4
    assert {f"trials/{known}", f"repeats/{known}-1"} <= left
    assert "The study does not have trial 0007. It is kept in" in caplog.text


CASES = {
    "smoke": ({}, {}),
    "mixing": ({}, {}),
    "lineages": ({}, {}),
    "Adam": ({"experts": tuple(replace(e, optimizer=Adam()) for e in short().experts)}, {}),
    "no sharing": ({}, {"shares_warmups": False}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_sweep_takes_no_more_room_than_was_said_and_not_much_less(
    name: str, tmp_path: Path
) -> None:
    changes, request = CASES[name]
    data = DataConfig(n_train=64, n_validation=20)
    base = replace(
        short(data=data, model=ModelConfig(name="convnet", width=32), epochs=4), **changes
    )
    space = name if name in SPACES else "smoke"
    config = SweepConfig(
        base=base, space=space, trials=2, resources=Resources(local=True), **request
    )
    peak, said = [0], Console(file=io.StringIO(), width=300)
    folder = tmp_path / "sweep"

    def watch() -> None:
        while not ended.wait(0.005):
            with suppress(OSError):  # a file may go meanwhile
                peak[0] = max(peak[0], _weights(folder))

    ended = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    sweep(config, folder, console=said)
    ended.set()
    watcher.join()
    images = load_dataset(data)
    network = build_model(base.model, images.n_classes, images.shape, seed=0)
    needed = room_needed(
        config, SPACES[space], sum(t.nbytes for t in averaged_tensors(network).values())
    )
    assert needed.text(0).split(";")[0] in said.file.getvalue()  # type: ignore[attr-defined]
    some = 40_000  # names and numbers of the state of a training
    assert _weights(folder) <= needed.kept + 4 * some
    assert peak[0] <= needed.kept + needed.running + 5 * some
    assert _weights(folder) >= needed.kept / 4


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.pt*"))


def test_the_room_of_a_sweep_by_hand() -> None:
    """In units of the model: 2 averages and the global learner of a trial, 3 of a warm-up."""
    base = short(epochs=6)
    request = SweepConfig(base=base, space="lineages", trials=10)
    # branches do not release it; the robust expert's optimizer is searched: two tensors of Adam
    assert room_needed(request, SPACES["lineages"], 1) == Room(
        trials=10, kept=10 * 2 + 10 * 4, running=2 * (3 + 4 + 1)
    )
    # of five epochs at most; three trials leave two states and their own last ones
    mixing = replace(request, space="mixing")
    assert room_needed(mixing, SPACES["mixing"], 1) == Room(
        trials=10, kept=10 * 3 + (5 + 5) * 3, running=2 * (2 * 3 + 1 + 3)
    )
    three = replace(mixing, trials=3)
    assert room_needed(three, SPACES["mixing"], 1).kept == 3 * 3 + (4 + 3) * 3
    # the natural expert's rate is searched: each trial has its own
    smoke = replace(request, space="smoke", trials=None, time_budget_s=1.0)
    assert room_needed(smoke, SPACES["smoke"], 1).kept == 3 + (2 + 1) * 3
    assert room_needed(replace(smoke, trials=5), SPACES["smoke"], 1).kept == 5 * 3 + (5 + 5) * 3
    bounded = replace(smoke, trials=5, warmups=WarmupConfig(folder="store", max_bytes=4))
    assert room_needed(bounded, SPACES["smoke"], 1).kept == 5 * 3 + 4
    alone = replace(base, evaluation=replace(base.evaluation, release_global=False))
    assert room_needed(replace(bounded, base=alone), SPACES["smoke"], 1).kept == 5 * 2 + 4


def test_too_little_room_is_said(tmp_path: Path) -> None:
    room = Room(trials=2, kept=320_000_000, running=10**9)
    said = "weights take up to 320 MB after 2 trials, and 1 GB more for each that runs; "
    assert room.text(1_320_000_000) == f"{said}1.32 GB are free"
    assert room.text(1_319_999_999) == f"{said}1.32 GB are free: TOO LITTLE for all of it"
    assert free_bytes(tmp_path / "new" / "out") > 0


@pytest.mark.parametrize("sizes", [[], [0], [3, 5], [1000, 1]])
def test_the_disk_use_is_that_of_all_files_once(sizes: list[int], tmp_path: Path) -> None:
    for number, size in enumerate(sizes):
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(bytes(size))
        (folder / "link").symlink_to(folder / "file")
    assert disk_bytes(tmp_path) == sum(sizes)


def removed_from(folder: Path, ledger: Ledger) -> set[str]:
    """The names of what can go, without the folder's."""
    found = removable(folder, ledger.results).values()
    return {str(path.relative_to(folder)) for paths in found for path in paths}


def test_what_can_go_is_what_no_command_needs(tmp_path: Path) -> None:
    ledger, trials = new_ledger(), tmp_path / "trials"
    for accuracies in ((0.4, 0.4), (0.5, 0.5)):
        complete(ledger, asked(ledger, trials), *accuracies)
    for name in ("warmups", "ray", "lost"):
        (tmp_path / name).mkdir()
    of_trials = {"trials/0000/averages.pt"}
    of_trials |= {f"trials/{trial}/checkpoint.pt" for trial in ("0000", "0001")}
    assert removed_from(tmp_path, ledger) == {*of_trials, "warmups", "ray"}
    (tmp_path / "warmups" / "key").mkdir()
    with leased(tmp_path / "warmups" / "key" / "claim", waits=False):  # of another sweep
        assert removed_from(tmp_path, ledger) == {*of_trials, "ray"}
    (tmp_path / "ray").rmdir()
    (tmp_path / "ray").symlink_to(tmp_path / "lost")
    asked(ledger, trials)  # runs, or is to be resumed: its files stay, and its warm-ups
    assert removed_from(tmp_path, ledger) == of_trials
