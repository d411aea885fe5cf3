"""One training in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from search.api.train import train
from search.errors import SweepFolderError
from tests.helpers.tiny import tiny_config


def test_train_returns_what_it_released_and_tells_every_epoch(tmp_path: Path) -> None:
    epochs: list[Metrics] = []
    trained = train(tiny_config(), tmp_path / "run", on_epoch=epochs.append)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2]
    assert all(isinstance(point, OperatingPoint) for point in trained.points)
    assert trained.forward_images > epochs[-1]["forward_images"]
    assert {path.name for path in trained.folder.iterdir()} == {
        "averages.pt",
        "config.json",
        "metrics.jsonl",
        "points.json",
        "tensorboard",
    }
    with pytest.raises(SweepFolderError, match="new or empty"):
        train(tiny_config(), tmp_path / "run")
