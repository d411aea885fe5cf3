"""A trial in its folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from generalist_core.codec import load_config
from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.datasets import load_dataset
from generalist_core.presets import short
from search.files import load_tensors, read_json
from search.report import mixed_state
from search.trial import TrialRun, point_to_dict, points_from_dicts, with_release_ratio


def tiny_config() -> TrainConfig:
    """Two epochs on 200 digits."""
    data = DataConfig(n_train=200, n_validation=50)
    config = short(data=data, model=ModelConfig(width=4), epochs=2)
    return dataclasses.replace(config, batch_size=16)


@pytest.fixture
def finished(tmp_path: Path) -> TrialRun:
    config = with_release_ratio(tiny_config(), 0.37)
    trial = TrialRun(tmp_path / "0000", config, load_dataset(config.data))
    while not trial.is_done:
        trial.advance()
    trial.release()
    return trial


def test_the_folder_holds_configuration_metrics_points_and_averages(finished: TrialRun) -> None:
    folder, trainer = finished.folder, finished.trainer
    assert load_config(folder / "config.json") == trainer.config
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert "accuracy/global/robust" in lines[-1]
    points = points_from_dicts(read_json(folder / "points.json"))
    assert [p.ratio for p in points] == [*tiny_config().evaluation.release_ratios, 0.37]


def test_any_mixture_can_be_made_again_from_the_averages(finished: TrialRun) -> None:
    averages = load_tensors(finished.folder / "averages.pt")
    mixed = mixed_state(averages, 0.37)
    expected = finished.trainer.mixture(0.37)
    assert all(torch.equal(a, b) for a, b in zip(mixed.values(), expected, strict=True))


def test_a_stopped_trial_continues_to_the_same_points(tmp_path: Path, finished: TrialRun) -> None:
    config, data = finished.trainer.config, load_dataset(finished.trainer.config.data)
    stopped = TrialRun(tmp_path / "a", config, data)
    stopped.advance()
    stopped.save(tmp_path / "checkpoint.pt")
    resumed = TrialRun(tmp_path / "b", config, data)
    resumed.load(tmp_path / "checkpoint.pt")
    resumed.advance()
    points = [point_to_dict(point) for point in resumed.release()]
    assert points == read_json(finished.folder / "points.json")
    assert resumed.trainer.forward_images == finished.trainer.forward_images


def test_a_release_ratio_that_is_there_is_not_added_again() -> None:
    config = tiny_config()
    assert with_release_ratio(config, 0.4) is config
    added = with_release_ratio(config, 0.41)
    expected = (*config.evaluation.release_ratios, 0.41)
    assert added.evaluation == dataclasses.replace(config.evaluation, release_ratios=expected)
