"""One training in a folder of its own, without Ray: the configuration in, operating points out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from generalist_core.config import TrainConfig
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from generalist_core.user_code import pinned
from search.files import create_folder
from search.monitoring.tensorboard import TrialWriter
from search.running.preflight import preflight
from search.running.trial import TrialRun


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training in its folder: the operating points that it released, and what it cost."""

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
        folder: where metrics, points, the experts' averages and TensorBoard's files go.
        data: the user's own images; by default those that the configuration names.
        model: the user's own `(n_classes, (c, h, w)) -> torch.nn.Module`.
        on_epoch: is told the metrics of each epoch.

    Raises:
        InvalidConfigError: a setting that cannot work; found before any work is done.
        SweepFolderError: the folder holds something already, or cannot be written.
        DivergedError: an expert's loss is no number any more.
    """
    folder = Path(folder)
    config, data = pinned(config), data or load_dataset(config.data)
    preflight(config, data, model)
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
    """As `train`, in a folder that has been made."""
    trial, writer = TrialRun(folder, config, data, model=model), TrialWriter(folder / "tensorboard")
    while not trial.is_done:
        metrics = trial.advance()
        writer.write(metrics)
        if on_epoch is not None:
            on_epoch(metrics)
    points = tuple(trial.release())
    writer.release(points)
    writer.close()
    trial.files.checkpoint.unlink(missing_ok=True)
    return Trained(folder=folder, points=points, forward_images=trial.trainer.forward_images)
