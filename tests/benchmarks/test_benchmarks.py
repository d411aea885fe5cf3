"""The benchmarks run on a CPU, at a tiny size, and write what they say they measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison import table
from tests import ROOT


def measured(name: str, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--threads", "1", "--device", "cpu"]
    subprocess.run(
        [*command, *options, "--out", str(out)], cwd=ROOT, check=True, capture_output=True
    )
    found: dict[str, Any] = json.loads(out.read_text())
    assert {"hardware", "threads", "torch", "python"} <= found["environment"].keys()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("model", ["convnet", "resnet18", "wrn-32-10"])
def test_a_training_step_agrees_with_the_textbook_and_is_timed(model: str, tmp_path: Path) -> None:
    options = ("--models", model, "--width", "1", "--batch", "2", "--repeats", "1")
    (row,) = measured("train_step", tmp_path / "out.json", *options)["rows"]
    variants = {"textbook", "plain", "folded", "channels_last", "both", "bfloat16"}
    assert row["agreement"] < 1e-9
    for figure in ("images_per_second", "ratio_to_textbook", "fraction_of_bound", "peak_mib"):
        assert row[figure].keys() == variants
    assert row["ratio_to_textbook"]["textbook"] == 1
    assert row["fraction_of_dense_rate"] is None


@pytest.mark.slow
def test_epochs_are_timed_alone_and_side_by_side(tmp_path: Path) -> None:
    """Seven batches an epoch; 75 epochs of warm-up, 45 of co-training, a judgement every 10."""
    size = ("--model", "convnet", "--width", "2", "--n-images", "60", "--batch", "8")
    options = ("--epochs", "1", "--precision", "float32", "--side-by-side", "2")
    found = measured("epochs", tmp_path / "out.json", *size, *options)
    warmup, cotraining, judgement, release = found["alone"]["seconds"].values()
    total = 75 * warmup + 45 * cotraining + 12 * judgement + release
    assert found["alone"]["minutes_of_120_epochs"] == pytest.approx(total / 60)
    assert found["alone"]["images_per_second"] == pytest.approx(56 / cotraining)
    assert found["joint_images_per_second"].keys() == {"1", "2"}
    assert len(found["alone"]["epoch_seconds"]) == 4


@pytest.mark.slow
def test_the_workers_use_is_a_share_of_their_time() -> None:
    command = [sys.executable, "-m", "benchmarks.utilisation", "--workers", "1"]
    size = ["--trials", "2", "--epochs", "2"]
    done = subprocess.run(
        [*command, *size], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert done.startswith("2 trials of ")
    fraction = float(done.rsplit(", ", 1)[1].split("%")[0]) / 100
    assert 0.05 < fraction <= 1


def found(*rows: tuple[float, float]) -> dict[str, Any]:
    history = [{"cost": cost, "hypervolume": v, "trade_off": v / 10} for cost, v in rows]
    return {"cost": rows[-1][0], "history": history}


def test_a_search_is_worth_what_it_found_within_plains_cost() -> None:
    """The last trial may cost more than was left."""
    results = {
        "t/s/plain/0": found((50, 0.2), (100, 0.6)),
        "t/s/ours/0": found((10, 0.3), (25, 0.5), (110, 0.7)),
        "t/s/no stopping/0": found((40, 0.6), (90, 0.8)),
    }
    methods = ["plain", "random", "ours", "no stopping"]
    rows = [line.split(" | ") for line in table(results, "t", "s", methods)][2:]
    assert [row[4:] for row in rows] == [
        ["1.00", "1.00", "0.000, 0.000, 0.200 |"],
        ["inf", "inf", "0.300, 0.500, 0.500 |"],
        ["0.40", "0.40", "0.000, 0.000, 0.600 |"],
    ]
    assert [row[2] for row in rows] == ["0.600", "0.500", "0.800"]


@pytest.mark.slow
def test_searches_are_compared_at_equal_cost(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    size = ["--task", "simulated", "--space", "mixing", "--seeds", "1", "--plain-trials", "3"]
    command = [sys.executable, "-m", "benchmarks.search_efficiency", *size, "--processes", "1"]
    command += ["--methods", "plain", "no sharing", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    results = json.loads(out.read_text())
    plain, ours = (results[f"simulated/mixing/{name}/0"] for name in ("plain", "no sharing"))
    assert plain["trials"]["completed"] == 3
    assert ours["history"][-1]["cost"] >= plain["cost"]
    assert len(ours["history"]) == 1 or ours["history"][-2]["cost"] < plain["cost"]
    assert "| no sharing | 1 |" in done
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
