"""A profile says where a step's time goes, and leaves the training alone."""

from __future__ import annotations

import json
from pathlib import Path

from generalist_core.training.trainer import GeneralistTrainer
from search.cli.profile import profile_training
from tests.helpers.problems import tiny_dataset, two_experts


def test_the_largest_fractions_come_first_and_the_trace_holds_the_convolutions(
    tmp_path: Path,
) -> None:
    fractions = profile_training(two_experts(), tiny_dataset(), tmp_path / "trace.json", n_steps=3)
    values = [fraction for _, fraction in fractions]
    assert len(fractions) == 10
    assert values == sorted(values, reverse=True)
    assert 0 < sum(values) <= 1
    assert any("convolution" in name for name, _ in fractions)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::conv2d" for event in events) >= 3 * (2 + 2) * 3


def test_a_training_after_it_is_the_same_as_without(tmp_path: Path) -> None:
    before = GeneralistTrainer(two_experts(), tiny_dataset()).train_epoch()
    profile_training(two_experts(), tiny_dataset(), tmp_path / "trace.json")
    after = GeneralistTrainer(two_experts(), tiny_dataset()).train_epoch()
    assert {**before, "seconds": 0.0} == {**after, "seconds": 0.0}
