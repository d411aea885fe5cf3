"""A process that hangs ends itself, and records where it hung."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search.folders import TrialFolder
from search.running.watchdog import Heartbeat, has_ended_itself, watched
from tests import ROOT

HANGING = """
import ctypes, pathlib, sys
from search.running.watchdog import watched
def hang():
    ctypes.PyDLL(None).sleep(60)
with watched(pathlib.Path(sys.argv[1]), 0.2):
    hang()
"""


def test_the_watchdog_ends_a_process_that_hangs(tmp_path: Path) -> None:
    """Even one that hangs in a library while it holds the interpreter lock."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 1
    assert has_ended_itself(tmp_path)
    assert "in hang" in TrialFolder(tmp_path).hang.read_text()


def test_a_process_that_is_in_time_leaves_no_file(tmp_path: Path) -> None:
    with watched(tmp_path, 60):
        assert not has_ended_itself(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="planted"), watched(tmp_path, 60):
        raise ValueError("planted")
    assert not has_ended_itself(tmp_path)


def await_that(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_heartbeat_changes_its_file_and_leaves_none(tmp_path: Path) -> None:
    file = TrialFolder(tmp_path).heartbeat
    heartbeat = Heartbeat(tmp_path, 0.1)
    await_that(lambda: heartbeat.n_beats > 0)
    first = file.read_bytes()
    await_that(lambda: file.read_bytes() not in (b"", first))
    assert len(file.read_bytes()) == len(first)
    heartbeat.close()
    assert not list(tmp_path.iterdir())


def test_a_heartbeat_waits_for_its_folder(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "later", 0.1)
    (tmp_path / "later").mkdir()
    await_that(lambda: heartbeat.n_beats > 0)
    heartbeat.close()


def test_a_process_whose_trial_another_has_taken_over_is_ended(tmp_path: Path) -> None:
    """Its token is overwritten, as by the worker that continues the trial of one that slept."""
    lost: list[str] = []
    first = Heartbeat(tmp_path, 0.1, on_lost=lambda: lost.append("first"))
    await_that(lambda: first.n_beats > 0)
    second = Heartbeat(tmp_path, 0.1, on_lost=lambda: lost.append("second"))
    await_that(lambda: bool(lost) and second.n_beats > 2)
    assert lost == ["first"]
    second.close()
