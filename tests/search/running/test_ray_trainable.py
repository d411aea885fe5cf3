"""A trial as Ray sees it: its errors are results, and its end is told once. Ray does not run."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune.utils import flatten_dict
from torch import Tensor, nn

from generalist_core.config import TrainConfig
from generalist_core.config.codec import replace_at, to_json
from generalist_core.models.build import ModelFactory
from search.config import Limits, WarmupConfig
from search.files import read_json
from search.front.points import points_from_dicts
from search.running.ray_trainable import GeneralistTrainable
from search.running.trial import CHECKPOINT, METRICS, read_metrics
from search.running.watchdog import HANG, has_hung, watched
from search.study.failures import FAILURE, LASTING, Failure, classify, is_of_storage
from tests import ROOT
from tests.helpers.problems import tiny_dataset, two_experts
from tests.helpers.tiny import begin, finish

CONFIG = two_experts()


class Faulty(nn.Module):
    """Raises when it is trained on more than `most` images, or from the call `at` on."""

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
) -> GeneralistTrainable:
    """An actor's object with its first trial; Ray would hand over the same arguments."""
    request = {"trial": folder.name, "folder": str(folder), "config": to_json(config)}
    actor = GeneralistTrainable(config=request)
    actor.setup(request, data=tiny_dataset(), model=model, limits=limits, warmups=warmups)
    return actor


def results(actor: GeneralistTrainable) -> list[dict[str, Any]]:
    """All results of a trial, as `train` gives them to Ray."""
    found = []
    while not found or not found[-1]["done"]:
        found.append(actor.train())
        assert len(found) <= CONFIG.epochs + 4
    return found


def failure(actor: GeneralistTrainable) -> Failure:
    last = results(actor)[-1]
    assert "points" not in last
    found = Failure(kind=last["failure"], reason=last["reason"])
    written = read_json(actor.worker.folder / FAILURE)
    assert {key: written[key] for key in ("kind", "reason")} == found.to_dict()
    return found


def test_a_trial_ends_with_the_points_of_one_without_ray(tmp_path: Path) -> None:
    found = results(worker(tmp_path / "0000"))
    alone = finish(begin(tmp_path / "alone"))
    last = found[-1]
    assert [result["epoch"] for result in found] == [1, 2, 3, 4, 5]
    assert points_from_dicts(last["points"]) == points_from_dicts(
        read_json(alone.folder / "points.json")
    )
    assert last["forward_images"] == alone.cost["forward_images"]
    assert (last["lost_forward_images"], last["n_accumulations"]) == (0, 1)
    assert not (tmp_path / "0000" / HANG).exists()


@pytest.mark.slow
@pytest.mark.parametrize("n_epochs", range(1, CONFIG.epochs + 1))
@pytest.mark.parametrize("shares", [False, True])
def test_whoever_takes_the_place_of_a_dead_worker_goes_on(
    shares: bool, n_epochs: int, tmp_path: Path
) -> None:
    """Also where all was trained, and the points released, but nobody was told."""
    store = WarmupConfig(folder=str(tmp_path / "store")) if shares else None
    first = worker(tmp_path / "0000", warmups=store)
    for _ in range(n_epochs):
        first.train()
    last = results(worker(tmp_path / "0000", warmups=store))[-1]
    alone = finish(begin(tmp_path / "alone"))
    assert points_from_dicts(last["points"]) == points_from_dicts(
        read_json(alone.folder / "points.json")
    )
    assert last["epoch"] == CONFIG.epochs


def test_one_actor_trains_one_trial_after_another(tmp_path: Path) -> None:
    actor = worker(tmp_path / "0000", model=faulty(RuntimeError("planted")))
    assert failure(actor).kind == "error"
    actor.worker.model = None
    request = {"trial": "0001", "folder": str(tmp_path / "0001"), "config": to_json(CONFIG)}
    assert actor.reset_config(request)
    assert "points" in results(actor)[-1]


ERRORS: dict[str, tuple[Exception, str]] = {
    "an error": (ValueError("planted"), "error"),
    "without words": (KeyError(), "error"),
    "an OSError of the trial's": (FileNotFoundError(errno.ENOENT, "none"), "error"),
    "memory": (MemoryError("planted"), "out-of-memory"),
    "a GPU's memory": (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
    "memory in words": (RuntimeError("[enforce fail] not enough memory: 9 GB"), "out-of-memory"),
    "memory in other words": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        "out-of-memory",
    ),
}


@pytest.mark.parametrize(("error", "kind"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_a_failure_of_its_kind(error: Exception, kind: str, tmp_path: Path) -> None:
    assert classify(error).kind == kind
    found = failure(worker(tmp_path / "0000", model=faulty(error)))
    assert found.kind == kind
    assert found.is_lasting
    assert type(error).__name__ in found.reason
    assert "Traceback" in read_json(tmp_path / "0000" / FAILURE)["traceback"]


def test_weights_that_are_no_numbers_are_a_divergence(tmp_path: Path) -> None:
    config = replace_at(CONFIG, "experts.robust.optimizer.lr", 1e38)
    found = failure(worker(tmp_path / "0000", config=config))
    assert found.kind == "diverged"
    assert "robust" in found.reason


def test_a_failure_costs_what_was_trained_and_reaches_ray_flat(tmp_path: Path) -> None:
    """Ray flattens the results that a searcher sees."""
    found = results(worker(tmp_path / "0000", model=faulty(ValueError("planted"), at=6)))
    assert len(found) > 2
    last = found[-1]
    assert last["forward_images"] >= found[-2]["forward_images"] > 0
    assert last["total_seconds"] > 0
    flat = flatten_dict(last)
    assert {"failure", "reason", "forward_images", "reused_forward_images"} <= set(flat)


# Memory


def test_what_is_too_large_is_trained_half_a_batch_at_a_time(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=CONFIG.batch_size // 2)
    actor = worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True))
    last = results(actor)[-1]
    assert last["n_accumulations"] == 2
    assert last["points"]
    assert not (tmp_path / "0000" / FAILURE).exists()


def test_epochs_before_memory_ran_out_are_lost(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=CONFIG.batch_size // 2, at=6)
    actor = worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True))
    found = results(actor)
    assert found[-1]["n_accumulations"] == 2
    again = [i for i, result in enumerate(found) if result["epoch"] == 1]
    assert len(again) == 2
    assert found[-1]["lost_forward_images"] == found[again[1] - 1]["forward_images"] > 0
    assert [line["epoch"] for line in read_metrics(tmp_path / "0000")] == [1, 2, 3, 4, 5]


def test_a_trial_gets_half_batches_once(tmp_path: Path) -> None:
    model = faulty(MemoryError("planted"), most=1)
    found = failure(worker(tmp_path / "0000", model=model, limits=Limits(may_accumulate=True)))
    assert found.kind == "out-of-memory"


@pytest.mark.parametrize("n_accumulations", [1, CONFIG.batch_size])
def test_half_batches_must_be_allowed_and_possible(n_accumulations: int, tmp_path: Path) -> None:
    config = replace(CONFIG, n_accumulations=n_accumulations)
    limits = Limits(may_accumulate=n_accumulations > 1)
    model = faulty(MemoryError("planted"))
    found = failure(worker(tmp_path / "0000", config=config, model=model, limits=limits))
    assert found.kind == "out-of-memory"


# Time


def test_a_trial_that_trains_too_long_fails(tmp_path: Path) -> None:
    found = failure(worker(tmp_path / "0000", limits=Limits(trial_s=1e-9)))
    assert found.kind == "time-limit"


def test_where_a_worker_has_hung_the_trial_fails(tmp_path: Path) -> None:
    first = worker(tmp_path / "0000")
    first.train()
    (tmp_path / "0000" / HANG).write_text("Timeout (0:00:01)!\n")
    found = failure(worker(tmp_path / "0000"))
    assert found.kind == "hang"
    assert HANG in found.reason


HANGING = """
import ctypes, pathlib, sys
from search.running.watchdog import watched
def hang():
    ctypes.PyDLL(None).sleep(60)
with watched(pathlib.Path(sys.argv[1]), 0.2):
    hang()
"""


def test_the_watchdog_ends_a_process_that_hangs(tmp_path: Path) -> None:
    """Also one that hangs in a library with Python's lock in its hands."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert has_hung(tmp_path)
    assert "in hang" in (tmp_path / HANG).read_text()


def test_who_is_in_time_leaves_no_word(tmp_path: Path) -> None:
    with watched(tmp_path, 60):
        assert not has_hung(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="planted"), watched(tmp_path, 60):
        raise ValueError("planted")
    assert not has_hung(tmp_path)


# Storage


def test_a_full_disk_is_no_fault_of_the_trials(tmp_path: Path) -> None:
    """`/dev/full` has no space left for whoever writes to it."""
    (tmp_path / "0000").mkdir()
    (tmp_path / "0000" / METRICS).symlink_to("/dev/full")
    last = results(worker(tmp_path / "0000"))[-1]
    assert "No space left" in last["storage_error"]
    assert "failure" not in last
    assert {"forward_images", "reused_forward_images", "total_seconds"} <= set(last)


def test_where_not_even_the_failure_can_be_written_the_sweep_is_told(tmp_path: Path) -> None:
    (tmp_path / "0000" / FAILURE / "in the way").mkdir(parents=True)
    last = results(worker(tmp_path / "0000", model=faulty(ValueError("planted"))))[-1]
    assert FAILURE in last["storage_error"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.ENOENT, False)],
)
def test_which_errors_are_the_storages(number: int, expected: bool) -> None:
    assert is_of_storage(OSError(number, "planted")) == expected
    assert not is_of_storage(ValueError("planted"))


def test_a_failure_that_would_come_again_is_lasting_and_kinds_are_known() -> None:
    kinds = ("worker-died", "orphan")
    assert not any(Failure(kind=kind, reason="").is_lasting for kind in kinds)  # type: ignore[arg-type]
    assert all(Failure(kind=kind, reason="").is_lasting for kind in LASTING)  # type: ignore[arg-type]


def test_a_trial_in_the_folder_of_another_fails(tmp_path: Path) -> None:
    worker(tmp_path / "0000").train()
    other = replace_at(CONFIG, "experts.natural.optimizer.lr", 0.2)
    before = (tmp_path / "0000" / CHECKPOINT).read_bytes()
    found = failure(worker(tmp_path / "0000", config=other))
    assert "must be of this trial" in found.reason
    assert (tmp_path / "0000" / CHECKPOINT).read_bytes() == before
