"""A benchmark run by its command line on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import ROOT


def measured(name: str, out: Path, *options: str) -> dict[str, Any]:
    """The document that a benchmark writes to `out`."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--threads", "1", "--device", "cpu"]
    subprocess.run(
        [*command, *options, "--out", str(out)], cwd=ROOT, check=True, capture_output=True
    )
    document: dict[str, Any] = json.loads(out.read_text())
    assert {"hardware", "threads", "torch", "python"} <= document["environment"].keys()
    return document
