"""No bit of a finished sweep may change unseen: a reader finds what was written, or names the file.

What the study does not need is left out with a warning, and the commands go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from search.api.export import export, load_export
from search.api.report import write_report
from search.api.sweep import resume
from search.api.verify import verify
from search.cli.main import main
from search.config import VerifyConfig
from search.errors import SweepFolderError
from search.files import (
    load_sealed,
    load_tensors,
    read_if_intact,
    read_sealed_json,
    write_sealed_json,
)
from search.folders import SweepFolder
from search.running.mixtures import point_state
from search.running.trial import read_metrics
from search.study.folder import Sweep, open_sweep
from tests.helpers.small_sweep import copy_of

N_FLIPS = 40
"""The bits of a file that are flipped, one at a time, from the first byte to the last."""


@pytest.fixture(scope="module")
def whole(two_trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that is verified, has repeats, and one exported model."""
    sweep = copy_of(two_trials, tmp_path_factory.mktemp("damage") / "sweep")
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


def on_front(folder: Path) -> str:
    """The trial of the knee."""
    return open_sweep(folder).pick("knee").point.trial


def knee(folder: Path, pattern: str) -> Path:
    """The file of a kind that belongs to the knee."""
    point = open_sweep(folder).pick("knee").point
    return folder / pattern.format(trial=point.trial, point=point.name)


READERS: dict[str, Callable[[Path], Any]] = {
    "trials/{trial}/averages.pt": lambda p: point_state(
        SweepFolder(p.parents[2]), p.parent.name, 0.5
    ),
    "models/{point}.pt": load_tensors,
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
    for pattern in ("models/{point}.pt", "model.pt"):
        path = knee(folder, pattern)
        assert same(torch.load(path, weights_only=True), load_tensors(path))


def test_the_file_of_another_trial_or_point_is_no_replacement(folder: Path) -> None:
    first, second = (SweepFolder(folder).trial(trial).averages for trial in ("0000", "0001"))
    shutil.copy(first, second)
    with pytest.raises(SweepFolderError, match="0001/averages.pt must hold the weights"):
        point_state(SweepFolder(folder), "0001", 0.5)
    one, other, *_ = sorted((folder / "models").glob("*.pt"))
    expected = other.read_bytes()
    shutil.copy(one, other)
    shutil.copy(folder / "trials" / "0000" / "averages.pt", folder / "model.pt")
    with pytest.raises(SweepFolderError, match=r"model\.pt must be the file of its card"):
        load_export(folder / "model.pt")
    if other.stem.startswith("0000"):
        write_report(open_sweep(folder))
        assert other.read_bytes() == expected


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flipped, emptied, removed])
def test_a_point_without_weights_is_left_out_and_all_else_goes_on(
    damage: Callable[[Path], None], folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    sweep = open_sweep(folder)
    lost = on_front(folder)
    damage(sweep.files.trial(lost).averages)
    models = {path.name: path.read_bytes() for path in sweep.files.models.iterdir()}
    gone = next(name for name in models if name.startswith(lost))
    damage(sweep.files.models / gone)
    write_report(sweep)
    assert caplog.text.count(f"The model of point {gone.removesuffix('.pt')} is left out") == 1
    assert f"{lost}/averages.pt must hold the weights" in caplog.text
    left = {path.name: path.read_bytes() for path in sweep.files.models.glob("*.pt")}
    assert left == {name: content for name, content in models.items() if name != gone}
    resume(folder, console=Console(quiet=True))
    (other,) = {point.name for point in sweep.front.points if point.trial != lost} or {None}
    with pytest.raises(SweepFolderError, match=f"{lost}/averages.pt must hold the weights"):
        export(sweep, gone.removesuffix(".pt"), tmp_path / "lost.pt")
    with pytest.raises(SweepFolderError, match=f"{lost}/averages.pt must hold the weights"):
        verify(sweep, VerifyConfig(attacks=("fgsm",), n_images=20))
    if other:
        export(sweep, other, tmp_path / "other.pt")
