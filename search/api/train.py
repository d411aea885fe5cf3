"""Train one configuration, without Ray: its folder is that of a sweep of one trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

import torch

from generalist_core.config import TrainConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.fingerprints import images_digest
from generalist_core.models.build import ModelFactory
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from generalist_core.user_code import pinned
from search.config import FIXED, CustomParts, Resources, SweepConfig
from search.files import create_folder
from search.folders import SweepFolder, TrialFolder
from search.lease import leased
from search.monitoring.tensorboard import TrialWriter
from search.running.preflight import preflight
from search.running.session import write_errors_explained
from search.running.trial import TrialRun
from search.scheduling.callbacks import MayFail
from search.study.folder import begin_ledger, custom_parts
from spaces import fixed


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training in its folder: the operating points that it released, and its cost.

    `folder` is that of a sweep, see `search.open_sweep`, and `files` are those of its one trial.
    """

    folder: Path
    files: TrialFolder
    points: tuple[OperatingPoint, ...]
    forward_images: int


def train(
    config: TrainConfig,
    folder: str | Path,
    *,
    data: Dataset | None = None,
    model: ModelFactory | None = None,
    on_epoch: Callable[[Metrics], None] | None = None,
) -> Trained:
    """Train one configuration in a new or empty folder, and release its mixtures.

    Args:
        config: the run.
        folder: where metrics, points, the experts' averages and TensorBoard's files are written, as
            those of a sweep of one trial; `search.resume` continues it.
        data: custom images; by default those that the configuration names.
        model: a custom `(n_classes, (c, h, w)) -> torch.nn.Module`.
        on_epoch: is called with the metrics of each epoch.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any work is done.
        SweepFolderError: the folder is not empty, or cannot be written.
        SweepInterruptedError: the disk was full, or the folder could no longer be written.
        DivergedError: the loss of an expert is NaN or infinite.
    """
    folder, custom = Path(folder), CustomParts(data=data, model=model)
    config, data = pinned(config), data or load_dataset(config.data)
    config = preflight(config, data, model)
    create_folder(folder)
    return train_in(folder, config, data, custom=custom, on_epoch=on_epoch)


def train_in(
    folder: Path,
    config: TrainConfig,
    data: Dataset,
    *,
    custom: CustomParts | None = None,
    on_epoch: Callable[[Metrics], None] | None = None,
) -> Trained:
    """Like `train`, in an empty folder that exists, after the preflight."""
    custom, files = custom or CustomParts(), SweepFolder(folder)
    request = SweepConfig(
        base=config,
        space=FIXED,
        trials=1,
        sampler="random",
        resources=Resources(cpus_per_trial=torch.get_num_threads(), local=True),
        shares_warmups=False,
        early_stopping=None,
    )
    pins = {"images": images_digest(data.train, data.validation)}
    with write_errors_explained(folder), leased(files.lease, waits=False) as lease:
        parts = custom_parts(custom.data, custom.model)
        ledger = begin_ledger(folder.absolute(), request, parts, pins)
        ledger.guard = lease.require
        ledger.enqueue({}, config.evaluation.release_ratios[0], len(config.experts))
        name = ledger.ask(fixed, config).trial
        trial = TrialRun(files.trial(name).root, config, data, model=custom.model)
        place = files.tensorboard / name
        writer = MayFail(f"TensorBoard in {place}", lambda: TrialWriter(place))
        while not trial.is_done:
            metrics = trial.advance()
            writer.use(methodcaller("write", metrics))
            if on_epoch is not None:
                on_epoch(metrics)
        points = tuple(trial.release())
        cost = trial.training.cost
        ledger.tell_released(name, points, {**cost, "seconds": cost["total_seconds"]})
        writer.use(methodcaller("release", points))
        writer.use(TrialWriter.close)
        trial.files.checkpoint.unlink(missing_ok=True)
    n_images = trial.trainer.forward_images
    return Trained(folder=folder, files=trial.files, points=points, forward_images=n_images)
