"""A trial in its folder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from generalist_core.config.codec import load_config, replace_at
from generalist_core.data.datasets import load_dataset
from generalist_core.training.warmups import warming
from search.files import read_sealed_json
from search.front.points import point_to_dict, points_from_dicts
from search.running.trial import TrialRun, read_metrics, with_release_ratio
from search.running.warmups import WarmupStore
from tests.helpers.tiny import tiny_config


@pytest.fixture
def finished(tmp_path: Path) -> TrialRun:
    config = with_release_ratio(tiny_config(), 0.37)
    trial = TrialRun(tmp_path / "0000", config, load_dataset(config.data))
    while not trial.is_done:
        trial.advance()
    trial.release()
    return trial


def test_the_folder_holds_configuration_metrics_points_and_averages(finished: TrialRun) -> None:
    assert load_config(finished.files.config) == finished.trainer.config
    lines = read_metrics(finished.folder)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert "accuracy/global/robust" in lines[-1]
    points = points_from_dicts(read_sealed_json(finished.files.points)["points"])
    assert [p.mixing_ratio for p in points][:4] == [0.0, 0.5, 1.0, 0.37]


def test_a_trial_resumes_in_its_folder_to_the_same_points(
    tmp_path: Path, finished: TrialRun
) -> None:
    """Law 2, for a process that dies between two epochs."""
    config, data = finished.trainer.config, load_dataset(finished.trainer.config.data)
    TrialRun(tmp_path / "a", config, data).advance()
    resumed = TrialRun(tmp_path / "a", config, data)
    assert resumed.trainer.epoch == 1
    resumed.advance()
    points = [point_to_dict(point) for point in resumed.release()]
    assert points == read_sealed_json(finished.files.points)["points"]
    assert resumed.trainer.forward_images == finished.trainer.forward_images
    assert [line["epoch"] for line in read_metrics(resumed.folder)] == [1, 2]


def sharing(folder: Path, name: str) -> TrialRun:
    """A trial with shared warm-ups: two epochs per expert, two together, evaluated every second."""
    config = replace_at(dataclasses.replace(tiny_config(), epochs=4), "sync.start_epoch", 2)
    config = replace_at(config, "evaluation.every_epochs", 2)
    store = WarmupStore(folder / "store")
    return TrialRun(folder / name, config, load_dataset(config.data), warmups=store)


def test_a_trial_that_must_wait_says_so_and_writes_nothing(tmp_path: Path) -> None:
    other, trial = sharing(tmp_path, "a"), sharing(tmp_path, "b")
    other.attempt()
    metrics = [trial.attempt() for _ in range(4)]
    assert [m is None for m in metrics] == [False, False, True, True]
    assert read_metrics(trial.folder) == metrics[:2]
    other.training.close()
    taken_over = trial.attempt()
    assert taken_over is not None
    assert taken_over["epoch/robust"] == 1


def test_a_trial_advances_once_another_has_trained_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, trial = sharing(tmp_path, "a"), sharing(tmp_path, "b")
    other.advance()
    for _ in range(2):
        trial.advance()
    assert warming(trial.trainer) == ["robust"]
    waited: list[float] = []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        other.advance()

    monkeypatch.setattr(time, "sleep", meanwhile)
    found = trial.advance()
    assert len(waited) == 1
    assert found["epoch"] == 3
    assert found["reused_forward_images"] > 0


def test_an_expert_trained_alone_is_evaluated_where_it_is_due(tmp_path: Path) -> None:
    trial, judged = sharing(tmp_path, "a"), []
    while not trial.is_done:
        judged.append({name for name in trial.advance() if name.startswith("accuracy/")})
    robust, together = (
        {f"accuracy/{name}/natural", f"accuracy/{name}/robust"} for name in ("robust", "global")
    )
    assert judged == [set(), robust, set(), {"accuracy/natural/natural"}, set(), together]


def test_a_release_ratio_that_is_there_is_not_added_again() -> None:
    config = tiny_config()
    assert with_release_ratio(config, 0.5) is config
    added = with_release_ratio(config, 0.41)
    expected = (*config.evaluation.release_ratios, 0.41)
    assert added.evaluation == dataclasses.replace(config.evaluation, release_ratios=expected)
