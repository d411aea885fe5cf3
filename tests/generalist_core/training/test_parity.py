"""Law 1: the `official` preset reproduces a recorded run of the official implementation.

The official code numbers epochs from 1, so its epoch 75 is our epoch 74.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import DataConfig, SyncConfig, TrainConfig
from generalist_core.config.presets import official
from generalist_core.data.splits import Dataset, Split
from generalist_core.training.averaging import load_weights, named
from generalist_core.training.trainer import GeneralistTrainer
from tests import ROOT

TRACE = ROOT / "tests" / "data" / "official_trace.npz"


class RecordedNet(nn.Module):
    """The net of the trace; its `meta` describes the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class RecordedNoise:
    """The uniform start noise of successive attacks, as recorded in [-epsilon, epsilon]."""

    def __init__(self, noise: Tensor, epsilon: float) -> None:
        self.uniforms = iter((noise / epsilon + 1) / 2)

    def uniform(self, like: Tensor, /) -> Tensor:
        return next(self.uniforms)

    def normal(self, like: Tensor, /) -> Tensor:
        raise AssertionError("the official attack draws no normal noise")


@pytest.fixture(scope="module")
def trace() -> dict[str, np.ndarray]:
    with np.load(TRACE) as recorded:
        return dict(recorded)


def start_trainer(trace: dict[str, np.ndarray], config: TrainConfig) -> GeneralistTrainer:
    """A trainer with the recorded initial weights, about to begin the first recorded epoch."""
    x, y = torch.from_numpy(trace["x"]), torch.from_numpy(trace["y"])
    split = Split(images=x.flatten(0, 1), labels=y.flatten())
    state = {k.removeprefix("init/"): torch.from_numpy(v) for k, v in trace.items() if "init/" in k}
    data = Dataset(name="recorded", train=split, validation=split)
    trainer = GeneralistTrainer(config, data, model=lambda n_classes, shape: RecordedNet())
    for expert in trainer.experts:
        load_weights(expert.model, state)
        expert.average.restart(expert.weights)
        expert.contribution.restart(expert.weights)
    trainer.epoch = int(trace["epoch"][0]) - 1
    return trainer


def differences(trace: dict[str, np.ndarray], config: TrainConfig) -> list[float]:
    """The largest difference of any recorded state, epoch by epoch."""
    meta = json.loads(str(trace["meta"]))
    trainer = start_trainer(trace, config)
    noise = RecordedNoise(torch.from_numpy(trace["noise"]), meta["epsilon"])
    model, largest = trainer.experts[0].model, []
    for row in meta["schedule"]:
        steps = np.flatnonzero(trace["epoch"] == row["epoch"])
        batches = [
            (torch.from_numpy(trace["x"][s]), torch.from_numpy(trace["y"][s])) for s in steps
        ]
        metrics = trainer.train_epoch(batches, [noise, noise])
        assert metrics["epoch"] == row["epoch"]
        assert metrics["lr/robust"] == pytest.approx(row["lr"], rel=1e-12)
        assert metrics["weight/robust"] == pytest.approx(row["mixing_ratio"], rel=1e-12)
        learners = {"global": named(model, trainer.global_learner)}
        for expert in trainer.experts:
            learners[expert.config.name] = named(model, expert.weights)
            learners[f"{expert.config.name}_average"] = named(model, expert.average.weights)
        largest.append(
            max(
                np.abs(tensor.numpy() - trace[f"epoch{row['epoch']}/{learner}/{name}"]).max()
                for learner, weights in learners.items()
                for name, tensor in weights.items()
            )
        )
    return largest


def official_config() -> TrainConfig:
    return dataclasses.replace(
        official(data=DataConfig(name="recorded")), precision="float64", device="cpu"
    )


def test_every_state_of_the_official_run_is_reproduced(trace: dict[str, np.ndarray]) -> None:
    assert max(differences(trace, official_config())) < 1e-9


def test_the_sync_epochs_are_the_recorded_ones(trace: dict[str, np.ndarray]) -> None:
    rows, sync = json.loads(str(trace["meta"]))["schedule"], official_config().sync
    assert [sync.is_sync(row["epoch"] - 1) for row in rows] == [row["synced"] for row in rows]


def test_the_trace_can_tell_a_run_without_syncs(trace: dict[str, np.ndarray]) -> None:
    config = dataclasses.replace(
        official_config(), sync=SyncConfig(start_epoch=119, every_epochs=5, at="every_step")
    )
    assert max(differences(trace, config)) > 0.1
