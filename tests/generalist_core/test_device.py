"""Devices by name, refused where they do not exist."""

from __future__ import annotations

import contextlib
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from generalist_core.config import PRECISIONS, Precision
from generalist_core.device import (
    full_precision,
    limit_gpu_memory,
    resolve_device,
    resolve_precision,
    training_precision,
)
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import LinearNet, tiny_dataset, two_experts

FULL = (False, "highest", False)


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


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", None, "float32"),
        ("cuda", (7, 5), "float32"),
        ("cuda", (8, 0), "bfloat16"),
        ("cuda", (9, 0), "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_a_gpu_has_it(
    device: str,
    capability: tuple[int, int] | None,
    expected: Precision,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what the user chose stays, on any device."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_precision("auto", torch.device(device)) == expected
    for precision in (p for p in PRECISIONS if p != "auto"):
        assert resolve_precision(precision, torch.device(device)) == precision


def test_a_run_says_what_auto_has_become_and_shares_with_one_that_asked_for_it() -> None:
    auto, asked = (
        GeneralistTrainer(two_experts(precision=p, device="cpu"), tiny_dataset())
        for p in ("auto", "float32")
    )
    assert (auto.config.precision, auto.precision) == ("auto", "float32")
    assert warmup_keys(auto, "robust") == warmup_keys(asked, "robust")


def rounding() -> tuple[bool, str, bool]:
    """The precision of float32 in convolutions and matrix products, and whether autocast is on."""
    matmul = torch.get_float32_matmul_precision()
    return torch.backends.cudnn.allow_tf32, matmul, torch.is_autocast_enabled("cpu")


class Recording(LinearNet):
    """Records the rounding of each forward; copies write into the same list."""

    seen: ClassVar[list[tuple[bool, str, bool]]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(rounding())
        return super().forward(x)


@pytest.mark.parametrize(
    ("precision", "in_training"),
    [
        ("float32", FULL),
        ("float64", FULL),
        ("auto", FULL),
        ("tfloat32", (True, "high", False)),
        ("tfloat32-convolutions", (True, "highest", False)),
        ("bfloat16", (False, "highest", True)),
    ],
)
def test_only_training_is_rounded(precision: Precision, in_training: object) -> None:
    before, config = rounding(), two_experts(precision=precision)
    trainer = GeneralistTrainer(
        config, tiny_dataset(), model=lambda n_classes, shape: Recording(shape, torch.float32)
    )
    Recording.seen.clear()
    trainer.train_epoch()
    assert set(Recording.seen) == {in_training}
    Recording.seen.clear()
    trainer.evaluate()
    trainer.release()
    assert set(Recording.seen) == {FULL}
    assert rounding() == before


@pytest.mark.parametrize(
    "block", [lambda: training_precision("tfloat32"), lambda: full_precision(torch.device("cpu"))]
)
def test_what_was_allowed_before_is_allowed_again_after_an_error(block: object) -> None:
    before = rounding(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    with contextlib.suppress(ArithmeticError), block():
        raise ArithmeticError
    after = rounding(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    assert after == before


@pytest.mark.parametrize(
    ("fraction", "set_to"), [(0.0, []), (0.25, [0.25, 0.25]), (1.0, []), (2.0, [])]
)
def test_a_fraction_of_a_gpu_is_one_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, fraction: float, set_to: list[float]
) -> None:
    found: list[float] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    limit = lambda fraction, index: found.append(fraction)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limit)
    limit_gpu_memory(fraction)
    assert found == set_to
