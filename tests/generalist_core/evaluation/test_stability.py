"""Models that give the same images other logits are told from stable ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generalist_core.evaluation.frozen import frozen
from generalist_core.evaluation.indicators import Probe
from generalist_core.evaluation.stability import unstable
from tests.helpers.planted import (
    Dropping,
    NoisyByPlace,
    PooledByPlace,
    Randomised,
    Sigmoid,
    WithoutStatistics,
    digits,
    natural_net,
)


def probe(model: nn.Module, n: int = 64) -> Probe:
    split = digits(n)
    net = frozen(model, torch.device("cpu"))
    return Probe(logits_of=net, x=split.images, y=split.labels, norm="linf", epsilon=0.1, seed=0)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (natural_net, None),
        (Sigmoid, None),
        (Randomised, "randomised"),
        (Dropping, "randomised"),
        (NoisyByPlace, "batch-dependent"),
        (PooledByPlace, "batch-dependent"),
        (WithoutStatistics, "batch-dependent"),
    ],
)
def test_each_unstable_model_is_found(build: type[nn.Module], name: str | None) -> None:
    indicator = unstable(probe(build()))
    assert (indicator and indicator.name) == name


def test_a_single_image_is_neither_randomised_nor_batch_dependent() -> None:
    assert unstable(probe(natural_net(), 1)) is None
    assert unstable(probe(Randomised(), 1)) is not None


def test_batch_dependence_counts_images() -> None:
    indicator = unstable(probe(NoisyByPlace(), 4))
    assert indicator is not None
    assert indicator.message == "the logits of 75.0% of 4 images differ alone and in a batch"
