"""One trial in its folder: trains epoch by epoch, records its metrics, and releases at the end.

`search.folders.TrialFolder` lists the files.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist_core.config import DataConfig, Ratio, TrainConfig, as_weights
from generalist_core.config.codec import load_config, to_json
from generalist_core.config.mixing import GLOBAL
from generalist_core.data.datasets import load_dataset
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.spare import SpareTrainer
from generalist_core.training.trainer import GeneralistTrainer, Metrics
from generalist_core.validation import InvalidConfigError
from search.errors import SweepFolderError
from search.files import (
    load_sealed,
    read_sealed_lines,
    save_sealed,
    sealed_line,
    write_sealed_json,
    write_text,
)
from search.folders import TrialFolder
from search.front.points import point_to_dict
from search.running.warmups import Warmups, WarmupStore, share_warmups

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How long to wait before looking again whether others have trained a warm-up."""

CHECKPOINT_FRACTION = 0.05
"""At most this fraction of the time is spent on checkpoints."""


class Training:
    """Drives a trainer epoch by epoch and counts the seconds.

    With a store of warm-ups the experts are brought to the first sync one by one, and what others
    have trained is adopted; from then on all experts train together.
    """

    def __init__(self, trainer: GeneralistTrainer, warmups: Warmups | None = None) -> None:
        """Start from the state of the trainer; warm-ups are taken from and added to `warmups`."""
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
        """The cost so far, including that of epochs that were lost and trained again."""
        return {
            "forward_images": self.trainer.forward_images + self.lost_forward_images,
            "reused_forward_images": self.trainer.reused_forward_images,
            "lost_forward_images": self.lost_forward_images,
            "total_seconds": self.seconds,
        }

    def attempt(self) -> Metrics | None:
        """Train one epoch, evaluate if it is due, and return the metrics.

        Returns None while others train a warm-up that is needed here.
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
        elif (expert := expert_trained(metrics)) and metrics[f"epoch/{expert}"] % every == 0:
            metrics |= trainer.evaluate_expert(expert)
        metrics["forward_images"] = trainer.forward_images + self.lost_forward_images
        metrics["lost_forward_images"] = self.lost_forward_images
        metrics["seconds"] = time.perf_counter() - started
        self.seconds += metrics["seconds"]
        return metrics

    def release(self) -> list[OperatingPoint]:
        """Evaluate mixtures of the trained experts, and the global learner."""
        started = time.perf_counter()
        points = self.trainer.release()
        self.seconds += time.perf_counter() - started
        return points

    def close(self) -> None:
        """Release the claim of an unfinished warm-up."""
        if isinstance(self._warming, Generator):
            self._warming.close()


class TrialRun:
    """A training in its folder: its results are written there, and it resumes from there.

    If a training was cut off, the epochs after its last checkpoint are trained again, to equal bits
    on the CPU; their first cost is counted as lost.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Dataset | None = None,
        *,
        model: ModelFactory | None = None,
        warmups: WarmupStore | None = None,
        spare: SpareTrainer | None = None,
    ) -> None:
        """Build the trainer and the folder, or resume from what the folder holds.

        Args:
            folder: where the trial's files go.
            config: the run.
            data: the images; by default those that `config` names.
            model: a custom factory of models.
            warmups: the store from which the experts' warm-ups are taken, and to which they are
                added.
            spare: the trainer of an ended trial, with the same data and factory.

        Raises:
            SweepFolderError: the folder belongs to another trial, or cannot be read.
        """
        self.folder, self.files = folder, TrialFolder(folder)
        config = self._config_as_begun(config)
        data = data or cached_dataset(config.data)
        taken = spare.take(config) if spare is not None else None
        self.trainer = taken or GeneralistTrainer(config, data, model=model)
        self.training = Training(self.trainer, warmups)
        log.info("Trial %s computes in %s.", folder.name, self.trainer.precision)
        self.n_lines = 0
        self._left: tuple[int, int]
        self._saved_at = self._saving_took_s = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        write_text(self.files.config, to_json(config) + "\n")
        self._resume()

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained."""
        return self.trainer.is_done

    def attempt(self) -> Metrics | None:
        """As `Training.attempt`; also records the metrics, and a checkpoint if one is due."""
        metrics = self.training.attempt()
        if metrics is not None:
            self._append(metrics)
            if time.monotonic() - self._saved_at >= self._saving_took_s / CHECKPOINT_FRACTION:
                self.save_checkpoint()
        return metrics

    def advance(self) -> Metrics:
        """As `attempt`, but wait for others if there is nothing else to do."""
        while (metrics := self.attempt()) is None:
            time.sleep(POLL_S)
        return metrics

    def save_checkpoint(self) -> None:
        """Replace the checkpoint by one of the present state."""
        started = time.monotonic()
        state = {
            "trainer": self.trainer.state_dict(),
            "seconds": self.training.seconds,
            "lost_forward_images": self.training.lost_forward_images,
            "n_lines": self.n_lines,
        }
        save_sealed(self.files.checkpoint, state, self.folder.name)
        self._saved_at = time.monotonic()
        self._saving_took_s = self._saved_at - started

    def release(self) -> list[OperatingPoint]:
        """Evaluate and record the mixtures, and save the averages that they are made from.

        The average of an expert that is in no mixture is None in the file. The global learner, if
        it was released, is beside them.
        """
        points = self.training.release()
        averages, names = self.trainer.averages(), [e.name for e in self.trainer.config.experts]
        released = [point.mixing_ratio for point in points]
        ratios = [as_weights(ratio, len(names)) for ratio in released if ratio != GLOBAL]
        used = dict(zip(names, map(any, zip(*ratios, strict=True)), strict=True))
        kept = {n: state if used.get(n, True) else None for n, state in averages.items()}
        save_sealed(self.files.averages, kept, self.folder.name)
        trainer, rows = self.trainer, [point_to_dict(p) for p in points]
        where = {"precision": trainer.precision, "device": trainer.device.type}
        write_sealed_json(self.files.points, {"points": rows, **where})
        return points

    def _append(self, metrics: Metrics) -> None:
        """Append a line to the file, unless it is not as this trial left it.

        A trial that resumes replaces the file. So a process that stood still meanwhile, and opens
        the file before that, writes to none that is read.
        """
        with self.files.metrics.open("a", encoding="utf-8") as file:
            if _version(os.fstat(file.fileno())) != self._left:
                raise SweepFolderError(
                    f"{self.files.metrics} must be written by one process, but another one has "
                    "changed or removed it since this one wrote. Run the sweep in one process."
                )
            file.write(sealed_line(metrics))
            file.flush()
            os.fsync(file.fileno())  # a checkpoint relies on the lines before it
            self._left = _version(os.fstat(file.fileno()))
        self.n_lines += 1

    def _config_as_begun(self, config: TrainConfig) -> TrainConfig:
        """`config`, with the number of accumulations that the trial has switched to."""
        if not self.files.config.is_file():
            return config
        try:
            begun = load_config(self.files.config)
        except InvalidConfigError as error:
            log.warning("%s is damaged, and is written again. %s", self.files.config, error)
            return config
        switched = replace(config, n_accumulations=begun.n_accumulations)
        doublings = math.log2(begun.n_accumulations / config.n_accumulations)
        if begun != switched or not doublings.is_integer():
            raise SweepFolderError(
                f"{self.folder} must belong to this trial, but holds another: "
                f"{self.files.config.name} differs. Remove that file if it is damaged, else the "
                "folder."
            )
        return switched if doublings > 0 else config

    def _resume(self) -> None:
        """Load the checkpoint; drop later metrics, as their epochs will be trained again.

        The file of metrics is replaced: nothing may be appended to a partial line.
        """
        training, state = self.training, self._load_checkpoint()
        if state is not None:
            self.trainer.load_state_dict(state["trainer"])
            training.seconds, self.n_lines = state["seconds"], state["n_lines"]
            training.lost_forward_images = state["lost_forward_images"]
        lines = read_metrics(self.folder)
        if len(lines) > self.n_lines:
            cost_before = lines[-1]["forward_images"]
            training.lost_forward_images += int(cost_before - training.cost["forward_images"])
        kept = lines[: self.n_lines]
        self.n_lines = len(kept)
        write_text(self.files.metrics, "".join(map(sealed_line, kept)))
        self._left = _version(self.files.metrics.stat())

    def _load_checkpoint(self) -> dict[str, Any] | None:
        """The checkpoint; None if there is none, or a damaged one, which is put aside."""
        path = self.files.checkpoint
        try:
            return load_sealed(path, self.folder.name)
        except SweepFolderError as error:
            log.warning("%s It is put aside, and the trial starts anew.", error)
            path.replace(path.with_suffix(".damaged"))
            return None


def _version(stat: os.stat_result) -> tuple[int, int]:
    """What changes when a file is replaced or written; times come late from some file systems."""
    return stat.st_ino, stat.st_size


def read_metrics(folder: Path) -> list[Metrics]:
    """The metrics of each epoch of a trial; a partial last line, left by a crash, is ignored.

    Raises:
        SweepFolderError: another line is damaged, or the epochs of an expert do not grow.
    """
    path = TrialFolder(folder).metrics
    if not path.is_file():
        return []
    lines, reached = read_sealed_lines(path), dict[str, float]()
    for number, line in enumerate(lines, 1):
        epochs = {name: epoch for name, epoch in line.items() if name.startswith("epoch/")}
        if again := [name for name in epochs if epochs[name] <= reached.get(name, 0)]:
            raise SweepFolderError(
                f"The epochs in {path} must grow, but {again[0]} is {epochs[again[0]]} after "
                f"{reached[again[0]]} in line {number}."
            )
        reached |= epochs
    return lines


def latest_epoch(metrics: Mapping[str, Any]) -> int:
    """The largest number of epochs that an expert has completed."""
    return int(max(value for name, value in metrics.items() if name.startswith("epoch/")))


def expert_trained(metrics: Metrics) -> str:
    """The expert that was trained alone, from the metrics of an epoch before the first sync."""
    (name,) = (key.removeprefix("epoch/") for key in metrics if key.startswith("epoch/"))
    return name


@functools.lru_cache(maxsize=2)
def cached_dataset(config: DataConfig) -> Dataset:
    """The data set of a configuration, cached for the next trial of this process."""
    return load_dataset(config)


def with_release_ratio(config: TrainConfig, ratio: Ratio) -> TrainConfig:
    """`config`, with `ratio` among its release ratios."""
    ratios = config.evaluation.release_ratios
    if ratio in ratios:
        return config
    evaluation = replace(config.evaluation, release_ratios=(*ratios, ratio))
    return replace(config, evaluation=evaluation)
