"""One trial in its folder: it trains epoch by epoch, keeps its metrics, and releases at the end.

config.json     the configuration
metrics.jsonl   one line an epoch
checkpoint.pt   what is needed to go on, while it runs
averages.pt     each expert's average, from which any mixture can be made
points.json     the released operating points
"""

from __future__ import annotations

import functools
import json
import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist_core.config import DataConfig, Ratio, TrainConfig
from generalist_core.config.codec import load_config, to_json
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import GeneralistTrainer, Metrics
from search.errors import SweepFolderError
from search.files import load_sealed, save_sealed, save_tensors, write_json, write_text
from search.front.points import point_to_dict
from search.running.warmups import Warmups, WarmupStore, share_warmups

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"

METRICS = "metrics.jsonl"

AVERAGES = "averages.pt"

POINTS = "points.json"

POLL_S = 1.0
"""How long to wait before looking again whether others have trained a warm-up."""

CHECKPOINT_FRACTION = 0.05
"""Of the time at most this goes into writing checkpoints; what a crash undoes follows from it."""


class Training:
    """Drives a trainer, epoch by epoch, and counts the seconds.

    With a store of warm-ups the experts are brought to the first sync one by one, each as far as
    nobody else has trained it; then all train together.
    """

    def __init__(self, trainer: GeneralistTrainer, warmups: Warmups | None = None) -> None:
        """Begin where the trainer stands; warm-ups are found in `warmups` and left there."""
        self.trainer = trainer
        self.seconds = 0.0
        self.lost_forward_images = 0
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
        """What the training has cost by now, what was lost and done again included."""
        return {
            "forward_images": self.trainer.forward_images + self.lost_forward_images,
            "reused_forward_images": self.trainer.reused_forward_images,
            "lost_forward_images": self.lost_forward_images,
            "total_seconds": self.seconds,
        }

    def attempt(self) -> Metrics | None:
        """Train one epoch, evaluate where it is due, and return the metrics.

        None while others train a warm-up that is needed here.
        """
        assert not self.is_done
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
        metrics["forward_images"] = trainer.forward_images + self.lost_forward_images
        metrics["lost_forward_images"] = self.lost_forward_images
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
    """A training in its folder: what it returns is written there, and it goes on from there.

    Of a training that ended in the middle, the epochs after its last checkpoint are done again, to
    equal bits on the CPU; what they cost is counted as lost.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Dataset | None = None,
        *,
        model: ModelFactory | None = None,
        warmups: WarmupStore | None = None,
    ) -> None:
        """Build the trainer and the folder, or go on with what is in it.

        Args:
            folder: where the trial's files go.
            config: the run.
            data: the images; by default those that `config` names.
            model: the user's own factory of models.
            warmups: where to look for the experts' warm-ups, and to leave them for others.

        Raises:
            SweepFolderError: the folder is another trial's, or cannot be read.
        """
        config = _as_begun(folder, config)
        data = data or cached_dataset(config.data)
        super().__init__(GeneralistTrainer(config, data, model=model), warmups)
        self.folder = folder
        self.n_lines = 0
        self._kept_at = self._keeping_took = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", to_json(config) + "\n")
        self._go_on()

    def attempt(self) -> Metrics | None:
        """As before, and keep the metrics; and a checkpoint, if it is time for one."""
        metrics = super().attempt()
        if metrics is not None:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint counts on the lines before it
            self.n_lines += 1
            if time.monotonic() - self._kept_at >= self._keeping_took / CHECKPOINT_FRACTION:
                self.keep()
        return metrics

    def keep(self) -> None:
        """Write a checkpoint in place of the last one."""
        started = time.monotonic()
        state = {
            "trainer": self.trainer.state_dict(),
            "seconds": self.seconds,
            "lost_forward_images": self.lost_forward_images,
            "n_lines": self.n_lines,
        }
        save_sealed(self.folder / CHECKPOINT, state, self.folder.name)
        self._kept_at = time.monotonic()
        self._keeping_took = self._kept_at - started

    def release(self) -> list[OperatingPoint]:
        """As before, and keep the points and what is needed to make the mixtures."""
        points = super().release()
        save_tensors(self.folder / AVERAGES, self.trainer.averages())
        write_json(self.folder / POINTS, [point_to_dict(point) for point in points])
        return points

    def _go_on(self) -> None:
        """Take up the checkpoint; metrics that are later than it are of epochs to be done again."""
        state = _checkpoint(self.folder)
        if state is not None:
            self.trainer.load_state_dict(state["trainer"])
            self.seconds, self.n_lines = state["seconds"], state["n_lines"]
            self.lost_forward_images = state["lost_forward_images"]
        lines = read_metrics(self.folder)
        if len(lines) > self.n_lines:
            had_cost = lines[-1]["forward_images"]
            self.lost_forward_images += int(had_cost - self.cost["forward_images"])
        self._keep_lines(lines[: self.n_lines])

    def _keep_lines(self, lines: Sequence[Metrics]) -> None:
        """Let the file have these alone: nothing may be appended to half a line."""
        path, kept = self.folder / METRICS, "".join(json.dumps(line) + "\n" for line in lines)
        if path.is_file() and path.read_bytes() != kept.encode():
            write_text(path, kept)


def read_metrics(folder: Path) -> list[Metrics]:
    """The epochs that a trial reported; half a last line, which a crash leaves, is none.

    Raises:
        SweepFolderError: another line is damaged.
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise SweepFolderError(f"{path} must have JSON lines, but: {error}.") from error


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint in a trial's folder; a damaged one is put aside, the trial begins again."""
    path = folder / CHECKPOINT
    try:
        return load_sealed(path, folder.name)
    except SweepFolderError as error:
        log.warning("%s It is put aside, and the trial begins again.", error)
        path.replace(path.with_suffix(".damaged"))
        return None


def _as_begun(folder: Path, config: TrainConfig) -> TrainConfig:
    """The configuration, or that with which the trial began to save memory."""
    path = folder / "config.json"
    if not path.is_file():
        return config
    begun = load_config(path)
    n_accumulations = max(begun.n_accumulations, config.n_accumulations)
    config = replace(config, n_accumulations=n_accumulations)
    if replace(begun, n_accumulations=n_accumulations) != config:
        raise SweepFolderError(f"{folder} must be of this trial, but holds another. Remove it.")
    return config


def latest_epoch(metrics: Mapping[str, Any]) -> int:
    """The latest epoch that an expert has behind it."""
    return int(max(value for name, value in metrics.items() if name.startswith("epoch/")))


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
