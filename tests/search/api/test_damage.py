"""No bit of a finished sweep may change unseen: a reader finds what was written, or names the file.

What the study does not need is left out with a warning, and the commands go on.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from generalist_core import once
from search.api.export import export, load_export
from search.api.report import write_report
from search.api.sweep import resume
from search.api.verify import verify
from search.cli.main import main
from search.config import Resources, VerifyConfig
from search.errors import SweepFolderError
from search.files import load_tensors, read_sealed_json, write_sealed_json
from search.folders import SweepFolder
from search.running.mixtures import point_state
from search.running.trial import read_metrics
from search.study.folder import open_sweep
from tests.helpers.damages import emptied, flipped
from tests.helpers.small_sweep import small_sweep
from tests.helpers.tiny import tiny_config

N_FLIPS = 40
"""The bits of a file that are flipped, one at a time, from the first byte to the last."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with both trials on its front, verified, with repeats and one exported model."""
    config = dataclasses.replace(tiny_config(), seed=2)
    sweep = small_sweep(tmp_path_factory.mktemp("damage") / "sweep", config)
    assert {point.trial for point in sweep.front.points} == {"0000", "0001"}
    verify(sweep, VerifyConfig(attacks=("fgsm",), n_images=20))
    rows = [
        {
            "trial": point.trial,
            "repeat": 1,
            "mixing_ratio": point.mixing_ratio,
            "accuracies": dict(point.accuracies),
        }
        for point in sweep.front.points
    ]
    write_sealed_json(sweep.files.repeats, {"repeats": rows})
    export(sweep, "knee", sweep.folder / "model.pt")
    return sweep.folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of the sweep that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


def knee(folder: Path, pattern: str) -> Path:
    """The file of a kind that belongs to the knee."""
    point = open_sweep(folder).pick("knee").point
    return folder / pattern.format(trial=point.trial, point=point.name)


READERS: dict[str, Callable[[Path], Any]] = {
    "trials/{trial}/averages.pt": lambda p: point_state(
        SweepFolder(p.parents[2]), p.parent.name, 0.5
    ),
    "model.pt": lambda p: load_export(p).state_dict(),
    "model.pt.json": lambda p: load_export(p.with_suffix("")).state_dict(),
    "verified.json": read_sealed_json,
    "repeats.json": read_sealed_json,
    "trials/{trial}/points.json": read_sealed_json,
    "trials/{trial}/metrics.jsonl": lambda p: read_metrics(p.parent),
}
"""The kinds of files, and how each is read."""


def damages(content: bytes) -> Iterator[bytes]:
    """One bit changed, from the first byte to the last; and less of the file, down to nothing."""
    for number in range(N_FLIPS):
        damaged = bytearray(content)
        damaged[number * (len(content) - 1) // (N_FLIPS - 1)] ^= 1 << (5 * number) % 8
        yield bytes(damaged)
    for end in (len(content) - 1, len(content) // 2, 1, 0):
        yield content[:end]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and any(isinstance(value, torch.Tensor) for value in one.values()):
        return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    return bool(one == other)


@pytest.mark.parametrize("pattern", READERS)
def test_every_reader_finds_what_was_written_or_names_the_file(pattern: str, folder: Path) -> None:
    path, read = knee(folder, pattern), READERS[pattern]
    content, expected = path.read_bytes(), read(path)
    for damaged in damages(content):
        path.write_bytes(damaged)
        try:
            found = read(path)
        except SweepFolderError as error:
            assert path.name in str(error)  # noqa: PT017
            assert " must " in str(error)  # noqa: PT017
        else:
            # metrics end with a partial line after a crash
            assert same(found, expected) or found == expected[: len(found)]


def test_plain_torch_loads_the_weights(folder: Path) -> None:
    path = folder / "model.pt"
    assert same(torch.load(path, weights_only=True), load_tensors(path))


def test_the_file_of_another_trial_is_no_replacement(folder: Path) -> None:
    first, second = (SweepFolder(folder).trial(trial).averages for trial in ("0000", "0001"))
    shutil.copy(first, second)
    with pytest.raises(SweepFolderError, match=r"0001/averages\.pt must hold the weights"):
        point_state(SweepFolder(folder), "0001", 0.5)
    shutil.copy(first, folder / "model.pt")
    with pytest.raises(SweepFolderError, match=r"model\.pt must be the file of its card"):
        load_export(folder / "model.pt")


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flipped, emptied, removed])
def test_a_point_without_weights_is_refused_and_all_else_goes_on(
    damage: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    sweep = open_sweep(folder)
    lost = knee(folder, "trials/{trial}/averages.pt")
    damage(lost)
    told = rf"{lost.parent.name}/averages\.pt must hold the weights"
    local = dataclasses.replace(sweep.config, resources=Resources(local=True))
    resume(folder, local, console=Console(quiet=True))
    write_report(sweep)
    with pytest.raises(SweepFolderError, match=told):
        export(sweep, "knee", tmp_path / "lost.pt")
    with pytest.raises(SweepFolderError, match=told):
        verify(sweep, VerifyConfig(attacks=("fgsm",), n_images=20))
    other = next(point for point in sweep.front.points if point.trial != lost.parent.name)
    assert export(sweep, other.name, tmp_path / "other.pt")["trial"] == other.trial


@pytest.mark.parametrize("name", ["repeats.json", "verified.json"])
@pytest.mark.parametrize("damage", [flipped, emptied])
def test_results_that_the_study_does_not_need_are_left_out(
    damage: Callable[[Path], None],
    name: str,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    sweep = open_sweep(folder)
    damage(folder / name)
    write_report(sweep)
    shown = (folder / "report.html").read_text()
    assert caplog.text.count("It is left out.") == 1
    assert f"{name} must be" in caplog.text
    (folder / name).unlink()
    write_report(sweep)
    assert len(shown) == pytest.approx(len((folder / "report.html").read_text()), abs=20)
    card = export(sweep, "knee", tmp_path / "m.pt")
    assert (card["test"] is None) == (name == "verified.json")


COMMANDS = (
    "front {folder} --json",
    "front {folder}",
    "explain {folder} 1",
    "export {folder} --pick knee --to {folder}/../again.pt --force",
    "evaluate {model} --width 4 --n-validation 50 --attacks fgsm --n-images 10",
)


@pytest.mark.parametrize("pattern", [*READERS, "trials/{trial}/config.json", "front.json"])
def test_every_command_does_the_same_or_names_the_file(
    pattern: str, folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    damaged, model = knee(folder, pattern), folder / "model.pt"
    commands = [command.format(folder=folder, model=model).split() for command in COMMANDS]

    def printed(arguments: list[str]) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capfd.readouterr()
        return code, re.sub(r"[\d.]+ s\b", "s", out), err

    expected = [printed(arguments)[:2] for arguments in commands]
    content = damaged.read_bytes()
    for arguments, before in zip(commands, expected, strict=True):
        damaged.write_bytes(content)
        flipped(damaged)
        once._said.clear()
        caplog.clear()
        code, out, err = printed(arguments)
        named = damaged.name in err + caplog.text
        assert (code, out) == before or named, (arguments, out, err)
        assert "Traceback" not in err
        assert code == 0 or (code == 2 and " must " in err)
