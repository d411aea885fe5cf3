"""Baselines: what they release, and at what cost."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks.baselines import BASELINES, ProbabilityMixture
from benchmarks.tasks import Task
from generalist_core.config import DataConfig, ModelConfig
from generalist_core.config.presets import short
from generalist_core.data.datasets import load_dataset


@pytest.fixture(scope="module")
def task() -> Task:
    """A hundred digits for four epochs."""
    data = DataConfig(n_train=100, n_validation=50)
    config = short(data=data, model=ModelConfig(width=2), epochs=4)
    whole = load_dataset(data)
    assert whole.test is not None
    few = whole.test.take(torch.arange(40))
    return Task(config=config, data=dataclasses.replace(whole, test=few))


@pytest.mark.parametrize("name", BASELINES)
def test_costs_grow_and_every_candidate_is_judged_on_both_splits(name: str, task: Task) -> None:
    found = list(BASELINES[name](task))
    costs = [cost for cost, _ in found]
    assert costs == sorted(set(costs))
    for _, candidates in found:
        (candidate,) = candidates  # one at a time
        for accuracies, n in ((candidate.validated, 50), (candidate.tested, 40)):
            assert set(accuracies) == {"natural", "robust"}
            assert accuracies["natural"] * n == pytest.approx(round(accuracies["natural"] * n))


def test_two_attack_steps_cost_less_than_ten(task: Task) -> None:
    """2 x 2 + 3 against 10 x 2 + 3 forward images, and the same for judging."""
    first = {name: next(BASELINES[name](task))[0] for name in list(BASELINES)[:2]}
    ten, two = first.values()
    n_images = 64  # whole batches
    assert ten - two == n_images * (23 - 7)


def test_probabilities_are_mixed() -> None:
    natural, robust = nn.Linear(3, 2), nn.Linear(3, 2)
    x = torch.rand(5, 3)
    mixed = ProbabilityMixture(natural, robust, 0.25)(x).exp()
    expected = 0.75 * natural(x).softmax(1) + 0.25 * robust(x).softmax(1)
    torch.testing.assert_close(mixed, expected)
    alone = ProbabilityMixture(natural, robust, 1.0)(x)
    torch.testing.assert_close(alone, robust(x).log_softmax(1))
