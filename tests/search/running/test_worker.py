"""A worker: errors of a trial are results, and memory, time and storage have their limits."""

from __future__ import annotations

import errno
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at
from generalist_core.models.build import ModelFactory
from generalist_core.training.trainer import GeneralistTrainer
from search.config import Limits, WarmupConfig
from search.files import read_json, read_sealed_json
from search.folders import TrialFolder
from search.front.points import points_from_dicts
from search.running.trial import latest_epoch, read_metrics
from search.running.worker import Worker
from search.study.failures import Failure, classify
from tests.helpers.problems import start, tiny_dataset, train_to, two_experts
from tests.helpers.tiny import begin, finish

CONFIG = two_experts()


class Faulty(nn.Module):
    """Raises when it is trained on more than `most` images, after `at` calls."""

    def __init__(self, error: Exception, *, most: int = 0, at: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.error, self.most, self.at = error, most, at
        self.n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += self.training
        if self.training and len(x) > self.most and self.n_calls > self.at:
            raise self.error
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def faulty(error: Exception, **when: int) -> ModelFactory:
    return lambda n_classes, shape: Faulty(error, **when)


def worker(
    folder: Path,
    *,
    config: TrainConfig = CONFIG,
    model: ModelFactory | None = None,
    limits: Limits | None = None,
    warmups: WarmupConfig | None = None,
) -> Worker:
    """A worker with its first trial."""
    made = Worker(
        data=tiny_dataset(), model=model, limits=limits, warmups=warmups, is_watched=False
    )
    made.begin(folder, config)
    return made


def files(folder: Path) -> TrialFolder:
    """The files of the trial 0000."""
    return TrialFolder(folder / "0000")


def results(worker: Worker) -> list[dict[str, Any]]:
    """All results of a trial."""
    given = [worker.step()]
    while "done" not in given[-1]:
        given.append(worker.step())
        assert len(given) <= CONFIG.epochs + 4
    return given


def failure(worker: Worker) -> Failure:
    last = results(worker)[-1]
    assert "points" not in last
    reported = Failure(kind=last["failure"], reason=last["reason"])
    written = read_json(worker.files.failure)
    assert {key: written[key] for key in ("kind", "reason")} == reported.to_dict()
    return reported


@pytest.mark.slow
@pytest.mark.parametrize("n_epochs", range(1, CONFIG.epochs + 1))
@pytest.mark.parametrize("shares", [False, True])
def test_the_worker_after_a_dead_one_resumes_the_trial(
    shares: bool, n_epochs: int, tmp_path: Path
) -> None:
    """Even if all was trained and the points were released, but not reported."""
    store = WarmupConfig(folder=str(tmp_path / "store")) if shares else None
    first = worker(tmp_path / "0000", warmups=store)
    for _ in range(n_epochs):
        first.step()
    last = results(worker(tmp_path / "0000", warmups=store))[-1]
    alone = finish(begin(tmp_path / "alone"))
    assert points_from_dicts(last["points"]) == points_from_dicts(
        read_sealed_json(alone.files.points)["points"]
    )
    assert last["epoch"] == CONFIG.epochs


ERRORS: dict[str, tuple[Exception, str]] = {
    "an error": (ValueError("planted"), "error"),
    "no message": (KeyError(), "error"),
    "an OSError of the trial": (FileNotFoundError(errno.ENOENT, "none"), "error"),
    "memory": (MemoryError("planted"), "out-of-memory"),
    "a GPU's memory": (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
    "memory by message": (RuntimeError("[enforce fail] not enough memory: 9 GB"), "out-of-memory"),
    "memory by another message": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        "out-of-memory",
    ),
}


@pytest.mark.parametrize(("error", "kind"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_a_failure_of_its_kind(error: Exception, kind: str, tmp_path: Path) -> None:
    assert classify(error).kind == kind
    outcome = failure(worker(tmp_path / "0000", model=faulty(error)))
    assert outcome.kind == kind
    assert outcome.is_lasting
    assert type(error).__name__ in outcome.reason
    assert "Traceback" in read_json(files(tmp_path).failure)["traceback"]


def test_weights_that_are_not_finite_are_a_divergence(tmp_path: Path) -> None:
    config = replace_at(CONFIG, "experts.robust.optimizer.lr", 1e38)
    outcome = failure(worker(tmp_path / "0000", config=config))
    assert outcome.kind == "diverged"
    assert "robust" in outcome.reason


def test_a_failure_costs_what_was_trained(tmp_path: Path) -> None:
    given = results(worker(tmp_path / "0000", model=faulty(ValueError("planted"), at=6)))
    assert len(given) > 2
    last = given[-1]
    assert last["forward_images"] >= given[-2]["forward_images"] > 0
    assert last["total_seconds"] > 0


# Memory


def test_what_is_too_large_is_trained_half_a_batch_at_a_time(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=CONFIG.batch_size // 2)
    actor = worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True))
    last = results(actor)[-1]
    assert last["n_accumulations"] == 2
    assert last["points"]
    assert not files(tmp_path).failure.exists()


def test_epochs_before_memory_ran_out_are_lost(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=CONFIG.batch_size // 2, at=6)
    actor = worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True))
    outcome = results(actor)
    assert outcome[-1]["n_accumulations"] == 2
    again = [i for i, result in enumerate(outcome) if result["epoch"] == 1]
    assert len(again) == 2
    assert outcome[-1]["lost_forward_images"] == outcome[again[1] - 1]["forward_images"] > 0
    assert [line["epoch"] for line in read_metrics(tmp_path / "0000")] == [1, 2, 3, 4, 5]


def test_a_trial_gets_half_batches_once(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=1)
    outcome = failure(worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True)))
    assert outcome.kind == "out-of-memory"


@pytest.mark.parametrize("n_accumulations", [1, CONFIG.batch_size])
def test_half_batches_must_be_allowed_and_possible(n_accumulations: int, tmp_path: Path) -> None:
    config = replace(CONFIG, n_accumulations=n_accumulations)
    limits = Limits(may_accumulate=n_accumulations > 1)
    model = faulty(MemoryError("planted"))
    outcome = failure(worker(tmp_path / "0000", config=config, model=model, limits=limits))
    assert outcome.kind == "out-of-memory"


# Time


def test_a_trial_that_trains_too_long_fails(tmp_path: Path) -> None:
    outcome = failure(worker(tmp_path / "0000", limits=Limits(trial_s=1e-9)))
    assert outcome.kind == "time-limit"


def test_where_a_worker_has_hung_the_trial_fails(tmp_path: Path) -> None:
    first = worker(tmp_path / "0000")
    first.step()
    files(tmp_path).hang.write_text("Timeout (0:00:01)!\n")
    outcome = failure(worker(tmp_path / "0000"))
    assert outcome.kind == "hang"
    assert "hang.txt" in outcome.reason


# Storage


def test_a_full_disk_is_not_a_failure_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    last = results(worker(tmp_path / "0000"))[-1]
    assert "No space left" in last["storage_error"]
    assert "failure" not in last
    assert {"forward_images", "reused_forward_images", "total_seconds"} <= set(last)


def test_a_folder_that_is_removed_is_not_a_failure_of_the_trial(tmp_path: Path) -> None:
    trains = worker(tmp_path / "0000")
    trains.step()
    (tmp_path / "0000").rename(tmp_path / "moved")
    last = trains.step()
    assert f"{tmp_path / '0000'} must stay in place" in last["storage_error"]
    assert "failure" not in last
    assert not (tmp_path / "0000").exists()


def test_where_not_even_the_failure_can_be_written_the_sweep_is_told(tmp_path: Path) -> None:
    (files(tmp_path).failure / "in the way").mkdir(parents=True)
    last = results(worker(tmp_path / "0000", model=faulty(ValueError("planted"))))[-1]
    assert "failure.json" in last["storage_error"]


def test_a_trial_that_is_done_is_released_without_its_metrics(tmp_path: Path) -> None:
    first = worker(tmp_path / "0000")
    for _ in range(CONFIG.epochs - 1):
        first.step()
    assert first.trial is not None
    first.trial.advance()
    first.trial.save_checkpoint()
    files(tmp_path).metrics.unlink()
    last = worker(tmp_path / "0000").step()
    assert (last["done"], last["epoch"]) == (True, CONFIG.epochs)
    assert latest_epoch(last) == CONFIG.epochs
    alone = finish(begin(tmp_path / "alone"))
    assert last["points"] == read_sealed_json(alone.files.points)["points"]


def test_a_trial_in_the_folder_of_another_ends_the_sweep_and_does_not_fail(tmp_path: Path) -> None:
    worker(tmp_path / "0000").step()
    other = replace_at(CONFIG, "experts.natural.optimizer.lr", 0.2)
    before = files(tmp_path).checkpoint.read_bytes()
    last = results(worker(tmp_path / "0000", config=other))[-1]
    assert "must belong to this trial" in last["storage_error"]
    assert "failure" not in last
    assert files(tmp_path).checkpoint.read_bytes() == before


@pytest.fixture
def replaying(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where steps are replays by the end of a trial."""
    monkeypatch.setattr(GeneralistTrainer, "replays", property(lambda _: True))


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
    trainings = worker(tmp_path / "0", config=runs[0])
    for number, run in enumerate(runs):
        trainings.begin(tmp_path / f"{number}", run)
        results(trainings)
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
    """The error that told of it holds its trainer no longer either."""
    learn, before = GeneralistTrainer.learn, list[weakref.ref[GeneralistTrainer]]()

    def short_of_memory(self: GeneralistTrainer, *args: Any) -> list[float]:
        if self.config.n_accumulations == 1:
            before.append(weakref.ref(self))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert before[0]() is None
        return learn(self, *args)

    monkeypatch.setattr(GeneralistTrainer, "learn", short_of_memory)
    limits = Limits(may_accumulate=True)
    assert "failure" not in worker(tmp_path / "0", limits=limits).step()
    assert len(before) == 1
