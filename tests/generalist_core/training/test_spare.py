"""A trial begins in the trainer of the one before it, if that replays what it recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist_core.training.spare import SpareTrainer
from generalist_core.training.trainer import GeneralistTrainer
from search.config import Limits
from search.files import read_sealed_json
from search.folders import TrialFolder
from search.running.worker import Worker
from tests.helpers.problems import start, tiny_dataset, train_to, two_experts


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where steps are replays by the end of a trial."""
    monkeypatch.setattr(GeneralistTrainer, "replays", property(lambda _: True))


def test_what_is_not_replayed_is_not_kept() -> None:
    spare = SpareTrainer()
    spare.keep(start(two_experts()))
    assert spare.take(two_experts()) is None


@pytest.mark.usefixtures("replaying")
def test_a_trainer_is_taken_once_by_a_run_that_fits() -> None:
    spare, trainer = SpareTrainer(), start(two_experts())
    spare.keep(trainer)
    assert spare.take(two_experts(seed=1)) is trainer
    assert spare.take(two_experts(seed=1)) is None
    spare.keep(trainer)
    assert spare.take(two_experts(batch_size=4)) is None
    assert spare.take(two_experts()) is None, "its memory is free"
    spare.keep(trainer)
    spare.drop()
    assert spare.take(two_experts()) is None


def built(monkeypatch: pytest.MonkeyPatch) -> list[GeneralistTrainer]:
    """The trainers that are made from now on."""
    made: list[GeneralistTrainer] = []
    begin = GeneralistTrainer.__init__

    def noted(self: GeneralistTrainer, *args: Any, **others: Any) -> None:
        made.append(self)
        begin(self, *args, **others)

    monkeypatch.setattr(GeneralistTrainer, "__init__", noted)
    return made


@pytest.mark.usefixtures("replaying")
def test_a_workers_trials_share_a_trainer_and_end_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(monkeypatch)
    runs = [two_experts(seed=seed) for seed in range(3)]
    runs.append(replace(runs[0], batch_size=4))
    worker = Worker(data=tiny_dataset(), is_watched=False)
    for number, run in enumerate(runs):
        worker.begin(tmp_path / f"{number}", run)
        while "done" not in worker.step():
            pass
    worker.close()
    assert len(made) == 2
    for number, run in enumerate(runs):
        alone = train_to(start(run), run.epochs)
        alone.evaluate()
        points = read_sealed_json(TrialFolder(tmp_path / f"{number}").points)["points"]
        assert [p["accuracies"] for p in points] == [p.accuracies for p in alone.release()]


@pytest.mark.usefixtures("replaying")
def test_a_trial_that_needs_less_memory_does_not_keep_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, learn = built(monkeypatch), GeneralistTrainer.learn
    kept: list[Any] = []

    def short_of_memory(self: GeneralistTrainer, *args: Any) -> list[float]:
        if self.config.n_accumulations == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        kept.append(worker.spare._trainer)
        return learn(self, *args)

    monkeypatch.setattr(GeneralistTrainer, "learn", short_of_memory)
    limits = Limits(may_accumulate=True)
    worker = Worker(data=tiny_dataset(), limits=limits, is_watched=False)
    worker.begin(tmp_path / "0", two_experts())
    worker.step()
    assert len(made) == 2
    assert kept == [None]
