"""One trial in its folder: it trains epoch by epoch, keeps its metrics, and releases at the end.

config.json     the configuration
metrics.jsonl   one line an epoch
averages.pt     each expert's average, from which any mixture can be made
points.json     the released operating points
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist_core.codec import to_json
from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.data import Dataset
from generalist_core.datasets import load_dataset
from generalist_core.evaluation import OperatingPoint
from generalist_core.models import ModelFactory
from generalist_core.trainer import GeneralistTrainer
from search.files import load_tensors, save_tensors, write_json, write_text


class TrialRun:
    """Drives a trainer and writes what it returns."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Dataset | None = None,
        *,
        model: ModelFactory | None = None,
    ) -> None:
        """Build the trainer and the folder; by default with the data that `config` names."""
        self.folder = folder
        data = data or cached_dataset(config.data)
        self.trainer = GeneralistTrainer(config, data, model=model)
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", to_json(config) + "\n")

    @property
    def is_done(self) -> bool:
        """Whether the trial is trained and released."""
        return self.trainer.is_done

    def advance(self) -> dict[str, float]:
        """Train one epoch, evaluate where it is due, and return the metrics."""
        trainer, evaluation = self.trainer, self.trainer.config.evaluation
        metrics = trainer.train_epoch()
        if trainer.epoch % evaluation.every_epochs == 0 or trainer.is_done:
            metrics |= trainer.evaluate()
        self.seconds += metrics["seconds"]
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        return metrics

    def release(self) -> list[OperatingPoint]:
        """Evaluate the mixtures of the trained experts, and keep what is needed to make them."""
        points = self.trainer.release()
        save_tensors(self.folder / "averages.pt", self.trainer.averages())
        write_json(self.folder / "points.json", [point_to_dict(point) for point in points])
        return points

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        save_tensors(path, {"trainer": self.trainer.state_dict(), "seconds": self.seconds})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = load_tensors(path)
        self.trainer.load_state_dict(state["trainer"])
        self.seconds = state["seconds"]


@functools.lru_cache(maxsize=2)
def cached_dataset(config: DataConfig) -> Dataset:
    """The data set of a configuration, kept for the next trial of this process."""
    return load_dataset(config)


def with_release_ratio(config: TrainConfig, ratio: Ratio) -> TrainConfig:
    """The configuration that releases `ratio` too."""
    ratios = config.evaluation.release_ratios
    if ratio in ratios:
        return config
    evaluation = replace(config.evaluation, release_ratios=(*ratios, ratio))
    return replace(config, evaluation=evaluation)


def point_to_dict(point: OperatingPoint) -> dict[str, Any]:
    """The JSON form of an operating point."""
    return {"ratio": point.ratio, "accuracies": dict(point.accuracies), "n_images": point.n_images}


def points_from_dicts(rows: Sequence[Mapping[str, Any]]) -> list[OperatingPoint]:
    """What `point_to_dict` wrote."""
    return [
        OperatingPoint(
            ratio=tuple(row["ratio"]) if isinstance(row["ratio"], list) else row["ratio"],
            accuracies=row["accuracies"],
            n_images=row["n_images"],
        )
        for row in rows
    ]
