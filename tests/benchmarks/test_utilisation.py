"""The fraction of their time that workers train."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT


@pytest.mark.slow
def test_the_workers_use_is_a_fraction_of_their_time() -> None:
    command = [sys.executable, "-m", "benchmarks.utilisation", "--workers", "1"]
    size = ["--trials", "2", "--epochs", "2"]
    done = subprocess.run(
        [*command, *size], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert done.startswith("2 trials of ")
    fraction = float(done.rsplit(", ", 1)[1].split("%")[0]) / 100
    assert 0.05 < fraction <= 1
