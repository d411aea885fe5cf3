"""One trial in its folder: it trains epoch by epoch, keeps its metrics, and releases at the end.

config.json     the configuration
metrics.jsonl   one line an epoch
averages.pt     each expert's average, from which any mixture can be made
points.json     the released operating points
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist_core.codec import to_json
from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.data import Dataset
from generalist_core.datasets import load_dataset
from generalist_core.evaluation import OperatingPoint
from generalist_core.models import ModelFactory
from generalist_core.trainer import GeneralistTrainer, Metrics
from search.files import load_tensors, save_tensors, write_json, write_text
from search.warmups import WarmupStore, share_warmups


class TrialRun:
    """Drives a trainer and writes what it returns."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Dataset | None = None,
        *,
        model: ModelFactory | None = None,
        warmups: WarmupStore | None = None,
    ) -> None:
        """Build the trainer and the folder.

        Args:
            folder: where the trial's files go.
            config: the run.
            data: the images; by default those that `config` names.
            model: the user's own factory of models.
            warmups: where to look for the experts' warm-ups, and to leave them for others.
        """
        self.folder = folder
        data = data or cached_dataset(config.data)
        self.trainer = GeneralistTrainer(config, data, model=model)
        self.seconds = 0.0
        every = config.evaluation.every_epochs
        self._warming: Iterator[Metrics] = iter(())
        if warmups is not None:
            self._warming = share_warmups(self.trainer, warmups, every_epochs=every)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", to_json(config) + "\n")

    @property
    def is_done(self) -> bool:
        """Whether the trial is trained and released."""
        return self.trainer.is_done

    def advance(self) -> Metrics:
        """Train one epoch, evaluate where it is due, and return the metrics.

        With a store of warm-ups the experts are brought to the first sync one by one, each as far
        as nobody else has trained it; then all train together.
        """
        started = time.perf_counter()
        trainer, every = self.trainer, self.trainer.config.evaluation.every_epochs
        metrics = next(self._warming, None)
        if metrics is None:
            metrics = trainer.train_epoch()
            if trainer.epoch % every == 0 or trainer.is_done:
                metrics |= trainer.evaluate()
        elif (alone := warmed(metrics)) and metrics[f"epoch/{alone}"] % every == 0:
            metrics |= trainer.evaluate_expert(alone)
        metrics["forward_images"] = trainer.forward_images
        metrics["seconds"] = time.perf_counter() - started
        self.seconds += metrics["seconds"]
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        return metrics

    def release(self) -> list[OperatingPoint]:
        """Evaluate the mixtures of the trained experts, and keep what is needed to make them."""
        started = time.perf_counter()
        points = self.trainer.release()
        self.seconds += time.perf_counter() - started
        save_tensors(self.folder / "averages.pt", self.trainer.averages())
        write_json(self.folder / "points.json", [point_to_dict(point) for point in points])
        return points

    def close(self) -> None:
        """Let go of a warm-up that was claimed and not finished."""
        if isinstance(self._warming, Generator):
            self._warming.close()

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        save_tensors(path, {"trainer": self.trainer.state_dict(), "seconds": self.seconds})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = load_tensors(path)
        self.trainer.load_state_dict(state["trainer"])
        self.seconds = state["seconds"]


def warmed(metrics: Metrics) -> str:
    """The expert that an epoch before the first sync trained alone."""
    (name,) = (key.removeprefix("epoch/") for key in metrics if key.startswith("epoch/"))
    return name


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
