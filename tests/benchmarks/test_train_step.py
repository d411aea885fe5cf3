"""Training steps agree with the textbook's and are timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.measured import measured


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
