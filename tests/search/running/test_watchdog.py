"""A process that hangs ends itself, and records where it hung."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.folders import TrialFolder
from search.running.watchdog import has_hung, watched
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
        [sys.executable, "-c", HANGING, str(tmp_path)],
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert has_hung(tmp_path)
    assert "in hang" in TrialFolder(tmp_path).hang.read_text()


def test_a_process_that_is_in_time_leaves_no_file(tmp_path: Path) -> None:
    with watched(tmp_path, 60):
        assert not has_hung(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="planted"), watched(tmp_path, 60):
        raise ValueError("planted")
    assert not has_hung(tmp_path)
