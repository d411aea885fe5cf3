"""Workers that stand still are ended, and their trials go on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.thirdparty_files import psutil

from generalist_core.config import TrainConfig
from search.api.sweep import sweep
from search.config import Limits, Resources, SweepConfig
from search.folders import SweepFolder, TrialFolder
from search.running.ray_heartbeats import Heartbeats
from search.running.trial import read_metrics
from search.study.folder import open_sweep
from spaces import SPACES
from spaces.protocol import Trial
from tests import ROOT
from tests.helpers.tiny import tiny_config

LIMITS = Limits(heartbeat_s=12.0, max_retries=1)
N_EPOCHS = 10
PATIENCE_S = 120.0


class Watching:
    """Heartbeats on a clock of the test's own, for one trial; notes which actors are ended."""

    def __init__(self, folder: Path) -> None:
        self.now, self.ended = 0.0, list[str]()
        self.is_ending = False
        self.file = TrialFolder(folder).heartbeat
        state = SimpleNamespace(ray_actor="first")
        config = {"trial": "0000", "folder": str(folder)}
        self.trial = SimpleNamespace(trial_id="a", config=config, temporary_state=state)
        self.in_creation = list[str]()
        self.heartbeats = Heartbeats(
            LIMITS,
            lambda: self.is_ending,
            clock=lambda: self.now,
            kill=self.ended.append,
            starting=lambda: self.in_creation,
        )

    def wait(
        self, seconds: float, step_s: float = 1.0, beat: Callable[[], Any] = lambda: None
    ) -> None:
        """Pass this time in steps; `beat` changes the file before each."""
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            beat()
            self.heartbeats.on_step_begin(0, [self.trial])


def test_a_worker_is_ended_once_its_heartbeat_has_stopped_for_long(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.wait(50, beat=lambda: watching.file.write_text(str(watching.now)))
    assert watching.ended == []
    watching.wait(11)
    assert watching.ended == []
    watching.wait(1)
    assert watching.ended == ["first"]
    assert not watching.heartbeats.has_hung("0000")


def test_each_worker_of_a_trial_has_the_whole_time_and_then_the_trial_hangs(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.wait(10)
    watching.trial.temporary_state.ray_actor = "second"
    watching.wait(12)
    assert watching.ended == []
    watching.wait(1)
    watching.trial.temporary_state.ray_actor = None
    watching.wait(50)
    watching.trial.temporary_state.ray_actor = "third"
    watching.wait(13)
    assert watching.ended == ["second", "third"]
    assert watching.heartbeats.has_hung("0000")


def test_the_time_in_which_the_driver_itself_stood_still_does_not_count(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.wait(5)
    watching.wait(1000, step_s=1000)
    assert watching.ended == []


def test_a_worker_that_does_not_start_is_ended_later(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.trial.temporary_state.ray_actor = None
    watching.in_creation = ["slow", "frozen"]
    watching.wait(30)
    watching.in_creation = ["frozen"]
    watching.wait(29)
    assert watching.ended == []
    watching.wait(1)
    assert watching.ended == ["frozen"]


@pytest.mark.slow
def test_at_the_end_workers_that_do_not_stop_are_ended(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.wait(1)
    watching.heartbeats.on_step_end(0, [])
    assert watching.heartbeats.timer is None
    watching.is_ending = True
    watching.heartbeats.on_step_end(0, [])
    watching.heartbeats.timer.join()  # after `STOPPING_S`
    assert watching.ended == ["first"]


def stop_a_worker(of: psutil.Process, folder: Path) -> int | None:
    """Stop the worker that trains, after its first epochs; returns its process id."""
    until, trial = time.monotonic() + PATIENCE_S, SweepFolder(folder).trial("0000")
    while time.monotonic() < until:
        time.sleep(0.05)
        if trial.checkpoint.is_file() and len(read_metrics(trial.root)) < N_EPOCHS:
            for process in of.children(recursive=True):
                if "Trainable" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGSTOP)
                    return process.pid
    return None


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_trial_of_a_worker_that_was_stopped_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = SweepConfig(
        base=replace(tiny_config(), epochs=N_EPOCHS),
        space="smoke",
        trials=1,
        sampler="random",
        early_stopping=None,
        shares_warmups=False,
        limits=Limits(heartbeat_s=3.0),
        resources=Resources(workers=1),
    )
    stopped = list[int | None]()
    strike = threading.Thread(
        target=lambda: stopped.append(stop_a_worker(psutil.Process(), tmp_path / "out"))
    )
    strike.start()
    with caplog.at_level(logging.WARNING):
        found = sweep(request, tmp_path / "out", debug=True)
    strike.join()
    assert stopped != [None]
    assert "trial 0000 has shown no sign of life for 3 s" in caplog.text
    assert found.counts.completed == 1
    trial = found.files.trial("0000")
    assert [line["epoch"] for line in read_metrics(trial.root)] == list(range(1, N_EPOCHS + 1))
    assert not trial.heartbeat.exists()
    here = sweep(replace(request, resources=Resources(local=True)), tmp_path / "undisturbed")
    assert found.results.points() == here.results.points()


def stop_the_next_worker() -> None:
    """Stop the next process that becomes a worker, in its imports."""
    old, until = set(psutil.Process().children(recursive=True)), time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for process in set(psutil.Process().children(recursive=True)) - old:
            with contextlib.suppress(psutil.Error):
                if "Trainable" in " ".join(process.cmdline()):
                    process.suspend()
                    return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("between", [True, False])
def test_no_trial_fails_if_a_worker_stops_in_its_imports_or_between_trials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, between: bool
) -> None:
    files, stopped = SweepFolder(tmp_path / "out"), list[psutil.Process]()

    def space(trial: Trial, base: TrainConfig) -> TrainConfig:
        """The space `smoke`; the last trial finds its worker stopped."""
        if between and not stopped and files.trial("0000").points.is_file():
            workers = psutil.Process().children(recursive=True)
            stopped.extend(p for p in workers if "Trainable" in " ".join(p.cmdline()))
            for process in stopped:
                process.suspend()
        return SPACES["smoke"](trial, base)

    if not between:
        threading.Thread(target=stop_the_next_worker).start()
    request = SweepConfig(
        base=tiny_config(),
        space="custom",
        trials=2,
        sampler="random",
        early_stopping=None,
        limits=Limits(heartbeat_s=12.0, max_retries=1),
        resources=Resources(workers=1),
    )
    with caplog.at_level(logging.WARNING):
        found = sweep(request, files.root, space=space, debug=True)
    said = "trial 0001 has shown no sign of life for 12 s" if between else "not started in 60 s"
    assert said in caplog.text
    assert found.counts.completed == 2


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_whose_worker_was_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = f"--data digits --trials 2 --workers 1 --epochs {N_EPOCHS} --space smoke"
    command = [sys.executable, "-m", "search", "sweep", *options.split(), "--out", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as driver:
        assert stop_a_worker(psutil.Process(driver.pid), folder) is not None
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=180)
    assert driver.returncode == 1
    assert "Interrupted. Continue: generalist-search resume" in said
    assert open_sweep(folder).counts.unfinished == 1
