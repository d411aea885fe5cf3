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
from search.warmups import Warmups, WarmupStore, share_warmups

POLL_S = 1.0
"""How long to wait before looking again whether others have trained a warm-up."""


class Training:
    """Drives a trainer, epoch by epoch, and counts the seconds.

    With a store of warm-ups the experts are brought to the first sync one by one, each as far as
    nobody else has trained it; then all train together.
    """

    def __init__(self, trainer: GeneralistTrainer, warmups: Warmups | None = None) -> None:
        """Begin where the trainer stands; warm-ups are found in `warmups` and left there."""
        self.trainer = trainer
        self.seconds = 0.0
        every = trainer.config.evaluation.every_epochs
        self._warming: Iterator[Metrics | None] = iter(())
        if warmups is not None:
            self._warming = share_warmups(trainer, warmups, every_epochs=every)

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.trainer.is_done

    @property
    def cost(self) -> dict[str, float]:
        """What the training has cost by now, in forward images and in seconds."""
        return {
            "forward_images": self.trainer.forward_images,
            "reused_forward_images": self.trainer.reused_forward_images,
            "total_seconds": self.seconds,
        }

    def attempt(self) -> Metrics | None:
        """Train one epoch, evaluate where it is due, and return the metrics.

        None while others train a warm-up that is needed here.
        """
        started = time.perf_counter()
        trainer, every = self.trainer, self.trainer.config.evaluation.every_epochs
        metrics = next(self._warming, {})
        if metrics is None:
            return None
        if not metrics:
            metrics = trainer.train_epoch()
            if trainer.epoch % every == 0 or trainer.is_done:
                metrics |= trainer.evaluate()
        elif (alone := warmed(metrics)) and metrics[f"epoch/{alone}"] % every == 0:
            metrics |= trainer.evaluate_expert(alone)
        metrics["forward_images"] = trainer.forward_images
        metrics["seconds"] = time.perf_counter() - started
        self.seconds += metrics["seconds"]
        return metrics

    def advance(self) -> Metrics:
        """As `attempt`, but wait for others where there is nothing else to do."""
        while (metrics := self.attempt()) is None:
            time.sleep(POLL_S)
        return metrics

    def release(self) -> list[OperatingPoint]:
        """Evaluate mixtures of the trained experts."""
        started = time.perf_counter()
        points = self.trainer.release()
        self.seconds += time.perf_counter() - started
        return points

    def close(self) -> None:
        """Let go of a warm-up that was claimed and not finished."""
        if isinstance(self._warming, Generator):
            self._warming.close()


class TrialRun(Training):
    """A training in its folder: what it returns is written there."""

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
        data = data or cached_dataset(config.data)
        super().__init__(GeneralistTrainer(config, data, model=model), warmups)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", to_json(config) + "\n")

    def attempt(self) -> Metrics | None:
        """As before, and keep the metrics."""
        metrics = super().attempt()
        if metrics is not None:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        return metrics

    def release(self) -> list[OperatingPoint]:
        """As before, and keep the points and what is needed to make the mixtures."""
        points = super().release()
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
