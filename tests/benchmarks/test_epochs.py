"""Epochs are timed, and a whole run is extrapolated from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.measured import measured


@pytest.mark.slow
def test_epochs_are_timed_alone_and_side_by_side(tmp_path: Path) -> None:
    """Seven batches per epoch; 75 epochs of warm-up, 45 of co-training, a judgement every 10."""
    size = ("--model", "convnet", "--width", "2", "--n-images", "60", "--batch", "8")
    options = ("--epochs", "1", "--precision", "float32", "--side-by-side", "2")
    found = measured("epochs", tmp_path / "out.json", *size, *options)
    warmup, cotraining, judgement, release = found["alone"]["seconds"].values()
    total = 75 * warmup + 45 * cotraining + 12 * judgement + release
    assert found["alone"]["minutes_of_120_epochs"] == pytest.approx(total / 60)
    assert found["alone"]["images_per_second"] == pytest.approx(56 / cotraining)
    assert found["joint_images_per_second"].keys() == {"1", "2"}
    assert len(found["alone"]["epoch_seconds"]) == 4
