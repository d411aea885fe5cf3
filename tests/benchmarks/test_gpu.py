"""The command for a GPU runs through on a CPU, where nothing is recorded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import gpu
from search.files import read_json


@pytest.mark.slow
def test_every_part_runs_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    tiny = ("--model", "convnet", "--width", "1", "--batch", "8", "--n-images", "80")
    rest = ("--epochs", "1", "--side-by-side", "--device", "cpu", "--out", str(out))
    gpu.main([*tiny, *rest, "--seconds", "1000"])
    document = read_json(out)
    assert document.keys() == {"environment", *gpu.BY_DEFAULT}
    plain = {"recorded": False, "taken_over": False, "relative_distance": 0.0}
    assert document["agreement"] == {"first": plain, "next": plain}
    assert document["trials"]["first"].keys() == document["trials"]["last"].keys()
    assert document["tests"]["passed"]
    assert document["sweep"]["seconds"] > document["sweep"]["training_seconds"] > 0
    assert document["joint"]["1"] > 0
    assert gpu.spread(document["judging"]) <= 0.01
    met = [line.split()[0] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert met == ["met", "met", "met"]


def test_no_part_begins_after_its_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "trials", lambda _: time.sleep(0.2))
    out = tmp_path / "gpu.json"
    parts = ["--parts", "trials", "agreement", "--seconds", "0.1"]
    gpu.main([*parts, "--device", "cpu", "--out", str(out)])
    assert read_json(out).keys() == {"environment", "trials"}
    assert "agreement: left out, as 0.1 s have passed" in capsys.readouterr().out


def test_figures_are_held_against_targets() -> None:
    rates = {"textbook": 700.0, gpu.FASTEST: 7000.0}
    sweep = {"busy_after_first_epoch": 60.0}
    found = {"steps": [{"images_per_second": rates}], "sweep": sweep}
    assert gpu.against_targets(found).splitlines() == [
        "met     images/s of a co-training step: 7000, at least 7000",
        "met     times the textbook: 10, at least 9",
        "MISSED  % of the sweep's time that the GPU is busy: 60, at least 70",
    ]
