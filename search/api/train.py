"""Train one configuration in its own folder, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path

from generalist_core.config import TrainConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from generalist_core.user_code import pinned
from search.files import create_folder
from search.folders import SweepFolder
from search.monitoring.tensorboard import TrialWriter
from search.running.preflight import preflight
from search.running.trial import TrialRun
from search.scheduling.callbacks import MayFail


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training in its folder: the operating points that it released, and its cost."""

    folder: Path
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
        folder: where metrics, points, the experts' averages and TensorBoard's files are written.
        data: custom images; by default those that the configuration names.
        model: a custom `(n_classes, (c, h, w)) -> torch.nn.Module`.
        on_epoch: is called with the metrics of each epoch.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any work is done.
        SweepFolderError: the folder is not empty, or cannot be written.
        DivergedError: the loss of an expert is NaN or infinite.
    """
    folder = Path(folder)
    config, data = pinned(config), data or load_dataset(config.data)
    config = preflight(config, data, model)
    create_folder(folder)
    return train_in(folder, config, data, model=model, on_epoch=on_epoch)


def train_in(
    folder: Path,
    config: TrainConfig,
    data: Dataset,
    *,
    model: ModelFactory | None = None,
    on_epoch: Callable[[Metrics], None] | None = None,
) -> Trained:
    """Like `train`, in an empty folder that exists, after the preflight."""
    trial = TrialRun(folder, config, data, model=model)
    place = SweepFolder(folder).tensorboard
    writer = MayFail(f"TensorBoard in {place}", lambda: TrialWriter(place))
    while not trial.is_done:
        metrics = trial.advance()
        writer.use(methodcaller("write", metrics))
        if on_epoch is not None:
            on_epoch(metrics)
    points = tuple(trial.release())
    writer.use(methodcaller("release", points))
    writer.use(TrialWriter.close)
    trial.files.checkpoint.unlink(missing_ok=True)
    return Trained(folder=folder, points=points, forward_images=trial.trainer.forward_images)
