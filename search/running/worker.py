"""A worker trains one trial after another, driven by Ray's actors or by the loop in `local`."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from generalist_core.config import TrainConfig
from generalist_core.data.splits import Dataset
from generalist_core.models.build import ModelFactory
from generalist_core.training.spare import SpareTrainer
from generalist_core.training.trainer import Metrics
from search.config import Limits, WarmupConfig
from search.files import write_sealed_json
from search.folders import TrialFolder
from search.front.points import point_to_dict, points_from_dicts
from search.running.session import folder_in_place
from search.running.trial import POLL_S, TrialRun, read_metrics
from search.running.warmups import open_store
from search.running.watchdog import Heartbeat, has_ended_itself, watched
from search.scheduling.searcher import Searcher
from search.study.failures import Failure, classify, is_of_folder

Result = TypeVar("Result")


class Worker:
    """Trains a trial, one epoch per step, and reports how it ended.

    The last result of a trial has `done` and the released `points`, or how and why it failed:
    `failure` and `reason`, or `storage_error` if its folder could not be written. All are flat, as
    Ray flattens results. `report_end` passes the last result on.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        data: Dataset | None = None,
        model: ModelFactory | None = None,
        warmups: WarmupConfig | None = None,
        limits: Limits | None = None,
        is_watched: bool = True,
        raises: bool = False,
    ) -> None:
        """Start without a trial.

        Args:
            threads: CPU threads of this process from now on.
            data: custom images.
            model: a custom factory of models.
            warmups: where trials share their warm-ups.
            limits: limits of time and memory.
            is_watched: whether this process ends itself when an epoch hangs, and has a heartbeat,
                for others to notice.
            raises: whether errors of a trial are raised instead of reported as its failure.
        """
        torch.set_num_threads(threads)
        self.data, self.model, self.warmups = data, model, warmups
        self.limits = limits or Limits()
        self.is_watched = is_watched
        self.raises = raises
        self.trial: TrialRun | None = None
        self.spare = SpareTrainer()
        self.heartbeat: Heartbeat | None = None

    def begin(self, folder: Path, config: TrainConfig) -> None:
        """Switch to another trial, without a new start-up; the data stay loaded."""
        self.close()
        self.folder, self.files, self.asked = folder, TrialFolder(folder), config
        self.has_accumulated = False
        if self.is_watched:
            self.heartbeat = Heartbeat(folder, self.limits.heartbeat_s)

    def step(self) -> dict[str, Any]:
        """Train one epoch; after the last epoch release the mixtures."""
        try:
            with folder_in_place(self.folder):
                return self._step()
        except Exception as error:
            if self.raises:
                raise
            return self._result_of_error(error)

    def close(self) -> None:
        """Release what the trial holds."""
        self._close_trial()
        if self.heartbeat is not None:
            self.heartbeat.close()
            self.heartbeat = None

    def _close_trial(self) -> None:
        if self.trial is not None:
            self.trial.training.close()
            self.spare.keep(self.trial.trainer)
            self.trial = None

    def _step(self) -> dict[str, Any]:
        if self.trial is None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if has_ended_itself(self.folder):
            reason = f"no end of an epoch in {self.limits.epoch_s:g} s, see {self.files.hang}"
            return self._failure_result(Failure(kind="hang", reason=reason))
        if self.trial is None:
            self.trial = self._watched(self._begin)
        trial = self.trial
        metrics = _last_epoch(trial) if trial.is_done else self._next_epoch(trial)
        limit = self.limits.trial_s
        if limit is not None and trial.training.seconds > limit:
            return self._failure_result(
                Failure(kind="time-limit", reason=f"trained more than {limit:g} s")
            )
        if not trial.is_done:
            return metrics
        points = [point_to_dict(point) for point in self._watched(trial.release)]
        n_accumulations = trial.trainer.config.n_accumulations
        ended = {"points": points, "n_accumulations": n_accumulations, "done": True}
        return {**metrics, **trial.training.cost, **ended}

    def _next_epoch(self, trial: TrialRun) -> Metrics:
        """Train the next epoch, once others have trained what it needs."""
        while (metrics := self._watched(trial.attempt)) is None:
            time.sleep(POLL_S)
        return metrics

    def _watched(self, work: Callable[[], Result]) -> Result:
        limit = self.limits.epoch_s
        with watched(self.folder, limit) if self.is_watched else contextlib.nullcontext():
            return work()

    def _begin(self) -> TrialRun:
        store = open_store(self.warmups, owner=str(self.folder)) if self.warmups else None
        return TrialRun(
            self.folder,
            self.asked,
            self.data,
            model=self.model,
            warmups=store,
            spare=self.spare,
        )

    def _result_of_error(self, error: Exception) -> dict[str, Any]:
        """The result after an error: that of another attempt, a failure, or a storage error."""
        if is_of_folder(error):
            return {**self._cost(), "storage_error": str(error), "done": True}
        failure = classify(error)
        may = self.limits.may_accumulate and self.asked.n_accumulations < self.asked.batch_size
        if failure.kind == "out-of-memory" and may and not self.has_accumulated:
            traceback.clear_frames(error.__traceback__)  # they hold what is to be freed
            return self._again_with_less_memory()
        return self._failure_result(failure, traceback.format_exc())

    def _again_with_less_memory(self) -> dict[str, Any]:
        self._close_trial()
        self.spare.drop()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.has_accumulated = True
        self.asked = replace(self.asked, n_accumulations=2 * self.asked.n_accumulations)
        self.files.checkpoint.unlink(missing_ok=True)
        return self.step()

    def _failure_result(self, failure: Failure, trace: str = "") -> dict[str, Any]:
        """The last result of a trial that failed; its folder records the reason too."""
        try:
            write_sealed_json(self.files.failure, {**failure.to_dict(), "traceback": trace})
        except OSError as error:
            return {**self._cost(), "storage_error": str(error), "done": True}
        return {**self._cost(), "failure": failure.kind, "reason": failure.reason, "done": True}

    def _cost(self) -> dict[str, float]:
        nothing = dict.fromkeys(("forward_images", "reused_forward_images", "total_seconds"), 0.0)
        return self.trial.training.cost if self.trial is not None else nothing


def _last_epoch(trial: TrialRun) -> Metrics:
    """The last metrics of a trial that is done; without its file of them, only the epochs."""
    epochs = {
        f"epoch/{expert.name}": trial.trainer.epoch for expert in trial.trainer.config.experts
    }
    unrecorded = {"epoch": trial.trainer.epoch, **epochs, "synced": 0.0, "seconds": 0.0}
    return (read_metrics(trial.folder) or [unrecorded])[-1]


def has_metrics(result: Mapping[str, Any]) -> bool:
    """Whether a result has the metrics of an epoch; that of a failure has not."""
    return not {"failure", "storage_error"} & set(result)


def report_end(searcher: Searcher, trial: str, result: Mapping[str, Any]) -> None:
    """Report to a search how a trial ended, from its last result; does nothing if it goes on."""
    if "failure" in result:
        failure = Failure(kind=result["failure"], reason=result["reason"])
        searcher.failed(trial, failure, result)
    elif "storage_error" in result:
        searcher.abort(OSError(result["storage_error"]))
    elif "points" in result:
        proposed, n = searcher.running[trial].config, result["n_accumulations"]
        trained = replace(proposed, n_accumulations=n)
        points = points_from_dicts(result["points"])
        searcher.released(trial, points, result, trained=None if trained == proposed else trained)
