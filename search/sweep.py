"""A sweep: a configuration, a space and a budget in; trials on Ray; the front out."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from generalist_core.codec import from_dict, to_dict
from generalist_core.config import TrainConfig
from generalist_core.data import Dataset
from generalist_core.datasets import load_dataset
from generalist_core.device import resolve_device
from generalist_core.models import ModelFactory
from generalist_core.randomness import derive_seed
from generalist_core.trainer import GeneralistTrainer
from generalist_core.validation import require, require_positive
from search.files import SweepFolderError, create_folder, read_json, write_json
from search.front import Front
from search.ledger import Ledger, TrialCounts, open_storage
from search.monitor import Monitor
from search.report import write_report
from search.samplers import build_sampler
from search.searcher import StudySearcher
from search.trainable import GeneralistTrainable
from spaces import Space, load_space, paper_suggestion

JOURNAL = "study.journal"

N_RANDOM_TRIALS = 10
"""Trials before a model-based sampler starts to model."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The whole request. `config` is what the space starts from; its seed is that of all trials.

    `workers` trials run at a time, by default as many as the cluster's CPUs and GPUs allow.
    `storage` is an Optuna storage URL, by default a journal in the output folder. `address` joins a
    running Ray cluster. `seed` is the sampler's.
    """

    config: TrainConfig
    space: str = "full"
    trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    workers: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    time_budget_s: float | None = None
    storage: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        require_positive("trials", self.trials)
        build_sampler(self.sampler, seed=0, n_startup=1)
        require(self.workers is None or self.workers > 0, "workers > 0", f"{self.workers}")
        require_positive("cpus_per_trial", self.cpus_per_trial)
        require(self.gpus_per_trial >= 0, "gpus_per_trial >= 0", f"{self.gpus_per_trial}")
        budget = self.time_budget_s
        require(budget is None or budget > 0, "time_budget_s > 0", f"time_budget_s={budget}")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep in its folder, finished or not."""

    folder: Path
    config: SweepConfig
    ledger: Ledger = field(repr=False)

    @property
    def front(self) -> Front:
        """The operating points that no other dominates."""
        return Front.of(self.ledger.points(), self.ledger.objectives)

    @property
    def counts(self) -> TrialCounts:
        """How the trials ended."""
        return self.ledger.counts()


def open_sweep(folder: Path) -> Sweep:
    """Open a sweep's folder to read it.

    Raises:
        SweepFolderError: no sweep there, or a damaged one.
    """
    config = from_dict(read_json(folder / "sweep.json")["request"], SweepConfig)
    if config.storage is None and not (folder / JOURNAL).is_file():
        raise SweepFolderError(f"{folder} must hold the {JOURNAL} of a sweep, but does not.")
    storage = open_storage(config.storage, folder / JOURNAL)
    ledger = Ledger(storage, config.config.evaluation.objectives, sampler=None)
    return Sweep(folder=folder, config=config, ledger=ledger)


def sweep(
    config: SweepConfig,
    folder: Path,
    *,
    space: Space | None = None,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    console: Console | None = None,
) -> Sweep:
    """Run a sweep in a new folder and write its report.

    Args:
        config: the request; its `space` is but a name where `space` is given.
        folder: a new or empty folder; on a cluster of several machines one that all of them share.
        space: a search space as a function.
        data: the user's own images; by default those that the configuration names.
        model: the user's own `(n_classes, (c, h, w)) -> torch.nn.Module`.
        console: where progress is told; by default standard error.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any trial starts.
        SweepFolderError: the folder holds something already, or cannot be written.
    """
    folder = folder.absolute()
    space = space or load_space(config.space)
    params, ratio = paper_suggestion(space, config.config)
    _check_that_it_can_start(config, data, model)
    create_folder(folder)
    write_json(folder / "sweep.json", {"request": to_dict(config), "environment": _environment()})
    n_points = 1 + len(config.config.evaluation.release_ratios)
    sampler = build_sampler(
        config.sampler,
        seed=derive_seed(config.seed, "sampler") % 2**32,
        n_startup=N_RANDOM_TRIALS * n_points,
    )
    storage = open_storage(config.storage, folder / JOURNAL)
    ledger = Ledger(storage, config.config.evaluation.objectives, sampler=sampler)
    ledger.enqueue(params, ratio, len(config.config.experts))
    with _ray(config):
        _run_trials(config, folder, ledger, space, data, model, console or Console(stderr=True))
    write_report(folder, ledger)
    return Sweep(folder=folder, config=config, ledger=ledger)


def _run_trials(
    config: SweepConfig,
    folder: Path,
    ledger: Ledger,
    space: Space,
    data: Dataset | None,
    model: ModelFactory | None,
    console: Console,
) -> None:
    monitor = Monitor(folder / "tensorboard", console)
    searcher = StudySearcher(
        ledger,
        monitor,
        space=space,
        base=config.config,
        folder=folder / "trials",
        n_trials=config.trials,
        n_workers=_n_workers(config),
    )
    threads = max(1, int(config.cpus_per_trial))
    trainable = tune.with_parameters(GeneralistTrainable, threads=threads, data=data, model=model)
    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
    try:
        tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=config.trials,
                reuse_actors=True,
                time_budget_s=config.time_budget_s,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(folder),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        ).fit()
    finally:
        ledger.close_unfinished("interrupted")
        monitor.close()


def _trial_folder(trial: Any) -> str:
    return str(trial.config["trial"])


@contextmanager
def _ray(config: SweepConfig) -> Iterator[None]:
    """The caller's Ray, left running; else the one at `address` or a new local one."""
    os.environ.update(RAY_QUIET)
    if ray.is_initialized():
        yield
        return
    ray.init(
        address=config.address,
        include_dashboard=False if config.address is None else None,
        logging_level=logging.ERROR,
        log_to_driver=False,
        configure_logging=True,
    )
    try:
        yield
    finally:
        ray.shutdown()


RAY_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "60",
}


def _n_workers(config: SweepConfig) -> int:
    """As many trials at a time as the request says, else as the cluster's resources hold."""
    if config.workers is not None:
        return config.workers
    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = [available.get("CPU", 0) / config.cpus_per_trial]
    if config.gpus_per_trial > 0:
        fits.append(available.get("GPU", 0) / config.gpus_per_trial)
    n_workers = int(min(fits))
    cure = "Ask for less, or add workers to the cluster."
    require(n_workers > 0, "one trial fits the cluster", f"{available}", cure)
    return n_workers


def _check_that_it_can_start(
    config: SweepConfig, data: Dataset | None, model: ModelFactory | None
) -> None:
    """Find out before any work is done: data, model and device are there."""
    wants_gpu = config.gpus_per_trial > 0 or config.config.device not in ("auto", "cpu")
    if config.address is None and wants_gpu:
        name = config.config.device if config.config.device not in ("auto", "cpu") else "cuda"
        resolve_device(name)
        require(
            config.gpus_per_trial > 0,
            "gpus_per_trial > 0 with a GPU device",
            f"gpus_per_trial={config.gpus_per_trial}, device={config.config.device}",
        )
    on_cpu = from_dict({**to_dict(config.config), "device": "cpu"}, TrainConfig)
    GeneralistTrainer(on_cpu, data or load_dataset(config.config.data), model=model)


def _environment() -> dict[str, str]:
    """What a result depends on beside the request."""
    packages = ("generalist-search", "torch", "torchvision", "ray", "optuna", "moocore")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": commit.stdout.strip() or "unknown",
        **{package: version(package) for package in packages},
    }
