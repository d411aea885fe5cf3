"""Mixtures of the front are made from averages, and written as weights."""

from __future__ import annotations

from pathlib import Path

import torch

from search.files import load_tensors
from search.folders import SweepFolder
from search.running.mixtures import mixed_state, write_models
from tests.helpers.small_sweep import copy_of
from tests.helpers.tiny import begin, finish


def test_any_mixture_can_be_made_again_from_the_averages(tmp_path: Path) -> None:
    trial = finish(begin(tmp_path / "0000"))
    mixed = mixed_state(load_tensors(trial.files.averages), 0.37)
    expected = trial.trainer.mixture(0.37)
    assert all(torch.equal(a, b) for a, b in zip(mixed.values(), expected, strict=True))


def test_the_models_are_those_of_the_front(two_trials: Path, tmp_path: Path) -> None:
    """A point that has joined the front is written, one that has left it is removed."""
    sweep = copy_of(two_trials, tmp_path / "sweep")
    models = SweepFolder(sweep.folder).models
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    assert before.keys() == {f"{point.name}.pt" for point in sweep.front.points}
    next(models.iterdir()).rename(models / "9999-0.5.pt")
    write_models(sweep.folder, sweep.front)
    assert {path.name: path.read_bytes() for path in models.iterdir()} == before
