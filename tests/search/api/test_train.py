"""One training in a folder of its own."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from generalist_core.config import CutMix, ModelConfig
from generalist_core.training.evaluator import OperatingPoint
from generalist_core.training.trainer import Metrics
from generalist_core.validation import InvalidConfigError
from search.api.export import export, load_export
from search.api.sweep import resume
from search.api.train import train
from search.cli.main import main
from search.config import FIXED, SweepConfig
from search.errors import SweepFolderError, SweepInterruptedError
from search.lease import leased
from search.study.folder import open_sweep, read_request
from spaces import fixed, load_space
from tests.helpers.problems import same_bits, tiny_dataset
from tests.helpers.tiny import tiny_config


class StoppedError(Exception):
    """Raised after an epoch, as a signal or a crash is."""


def stop(_: Metrics) -> None:
    raise StoppedError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training."""
    return train(tiny_config(), tmp_path_factory.mktemp("train") / "run").folder


def test_train_returns_what_it_released_and_tells_every_epoch(tmp_path: Path) -> None:
    epochs: list[Metrics] = []
    trained = train(tiny_config(), tmp_path / "run", on_epoch=epochs.append)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2]
    assert all(isinstance(point, OperatingPoint) for point in trained.points)
    assert trained.forward_images > epochs[-1]["forward_images"]
    there = {path.name for path in trained.folder.iterdir()}
    assert there == {"sweep.json", "study.journal", "tensorboard", "trials"}
    assert {path.name for path in trained.files.root.iterdir()} == {
        "averages.pt",
        "config.json",
        "metrics.jsonl",
        "points.json",
    }
    with pytest.raises(SweepFolderError, match="new or empty"):
        train(tiny_config(), tmp_path / "run")


def test_a_folder_of_train_is_a_sweep_of_one_trial(whole: Path, tmp_path: Path) -> None:
    sweep = open_sweep(whole)
    assert (sweep.counts.completed, sweep.counts.total) == (1, 1)
    assert load_space(sweep.config.space) is fixed
    assert {point.trial for point in sweep.results.points()} == {"0000"}
    assert sweep.results.cost()["seconds"] > 0
    export(sweep, "knee", tmp_path / "model.pt")
    load_export(tmp_path / "model.pt")


def test_an_interrupted_training_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(tiny_config(), folder, on_epoch=stop)
    resumed, points = resume(folder), attrgetter("results.points")
    assert points(resumed)() == points(open_sweep(whole))()
    assert resumed.files.report.is_file()
    assert resumed.counts.total == resume(folder).counts.total == 1


def test_a_custom_training_is_resumed_with_the_same_data(tmp_path: Path) -> None:
    data = tiny_dataset()
    with pytest.raises(StoppedError):
        train(tiny_config(), tmp_path, data=data, on_epoch=stop)
    with pytest.raises(InvalidConfigError, match="The data must be the data of the sweep"):
        resume(tmp_path)
    assert resume(tmp_path, data=data).counts.completed == 1


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    def takes_over(_: Metrics) -> None:
        (tmp_path / ".lease").write_text("another process")

    with pytest.raises(SweepInterruptedError, match="names another"):
        train(tiny_config(), tmp_path, on_epoch=takes_over)
    with (
        leased(tmp_path / ".lease", waits=False),
        pytest.raises(SweepFolderError, match="one process at a time"),
    ):
        resume(tmp_path)


def test_nothing_is_searched_in_a_training(whole: Path) -> None:
    assert read_request(whole).space == FIXED
    with pytest.raises(InvalidConfigError, match=r"must be one trial.*trials=20.*--config"):
        SweepConfig(base=tiny_config(), space=FIXED)


def test_a_training_begins_from_weights_and_needs_them_to_go_on(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what else is usual: clipped gradients, rising rates, frozen layers, mixed images."""
    weights, folder = tmp_path / "weights.pt", tmp_path / "run"
    export(open_sweep(whole), "knee", weights)
    config = replace(tiny_config(), model=ModelConfig(width=4, init=str(weights), frozen=("0.*",)))
    experts = tuple(
        replace(expert, max_gradient_norm=1.0, lr_warmup_epochs=0.5, batch_augmentation=CutMix())
        for expert in config.experts
    )
    config = replace(config, experts=experts)
    ended = train(config, tmp_path / "whole").files.averages
    with pytest.raises(StoppedError):
        train(config, folder, on_epoch=stop)
    content = weights.read_bytes()
    torch.save(torch.load(ended)["natural"], weights)
    with pytest.raises(InvalidConfigError, match=r"weights\.pt` must be as it was when the run"):
        resume(folder)
    weights.unlink()
    with pytest.raises(InvalidConfigError, match=r"`init` .* weights, but got \S+: No such file"):
        resume(folder)
    weights.write_bytes(content)
    resumed = resume(folder)
    averages = torch.load(resumed.files.trial("0000").averages)
    assert same_bits(averages, torch.load(ended))
    begun = torch.load(weights)
    for average in averages.values():
        torch.testing.assert_close(average["0.weight"], begun["0.weight"])
        assert not torch.equal(average["3.weight"], begun["3.weight"])
    weights.unlink()  # what was trained is used without it
    export(resumed, "knee", tmp_path / "model.pt")
    load_export(tmp_path / "model.pt")
    words = ["evaluate", "--attacks", "fgsm", "--n-images", "20"]
    for place in (tmp_path / "model.pt", folder):
        assert main([*words, str(place)]) == 0
    capsys.readouterr()


def test_weights_of_another_model_are_refused_before_any_work(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(open_sweep(whole), "knee", tmp_path / "weights.pt")
    words = ["--data", "digits", "--init", str(tmp_path / "weights.pt"), "--width", "5"]
    for command in (["train"], ["sweep", "--local", "--trials", "1"]):
        assert main([*command, *words, "--out", str(tmp_path / "run")]) == 2
        assert "must hold weights of the architecture" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
