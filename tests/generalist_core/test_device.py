"""Devices by name, refused where they do not exist."""

from __future__ import annotations

import pytest
import torch

from generalist_core.device import resolve_device
from generalist_core.trainer import GeneralistTrainer
from generalist_core.validation import InvalidConfigError
from tests.helpers import tiny_dataset, two_experts


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_accelerator_if_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:77", "must exist.*'cuda:77'.*--device"),
        ("gpu", "auto, cpu or cuda.*'gpu'"),
        ("", "auto, cpu or cuda.*''"),
        ("meta", "auto, cpu or cuda.*'meta'"),
        ("mps", "auto, cpu or cuda.*'mps'"),
    ],
)
def test_other_devices_are_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        resolve_device(name)


def test_a_run_on_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="'cuda:77'"):
        GeneralistTrainer(two_experts(device="cuda:77"), tiny_dataset())
