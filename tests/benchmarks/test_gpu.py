"""The command for a GPU runs through on a CPU, where nothing is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu
from search.files import read_json


@pytest.mark.slow
def test_every_part_runs_and_is_written(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    tiny = ("--model", "convnet", "--width", "1", "--batch", "8", "--n-images", "80")
    rest = ("--epochs", "1", "--side-by-side", "--device", "cpu", "--out", str(out))
    gpu.main([*tiny, *rest])
    document = read_json(out)
    assert document.keys() == {"environment", *gpu.PARTS}
    assert document["agreement"] == {"recorded": False, "relative_distance": 0.0}
    assert document["trials"]["first"].keys() == document["trials"]["last"].keys()
    assert document["tests"]["passed"]
    assert document["sweep"]["seconds"] > document["sweep"]["training_seconds"] > 0
