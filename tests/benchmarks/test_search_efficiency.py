"""Searches of several methods at equal cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.slow
def test_searches_are_compared_at_equal_cost(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    size = ["--task", "simulated", "--space", "mixing", "--seeds", "1", "--plain-trials", "3"]
    command = [sys.executable, "-m", "benchmarks.search_efficiency", *size, "--processes", "1"]
    names = "plain", "lineages, no sharing"
    command += ["--methods", *names, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    results = json.loads(out.read_text())
    plain, ours = (results[f"simulated/mixing/{name}/0"] for name in names)
    assert plain["trials"]["completed"] == 3
    assert ours["cost"] >= plain["cost"]
    assert all(row["cost"] < plain["cost"] for row in ours["history"][:-1])
    assert "| lineages, no sharing | 1 |" in done
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
