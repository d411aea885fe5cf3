"""Averages and mixtures of weights against sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generalist_core.config import MixingConfig
from generalist_core.training.averaging import (
    Average,
    Weights,
    all_finite,
    copy_weights,
    load_weights,
    mix,
    named,
    names_of,
    weights_of,
)
from tests.helpers.problems import clones, same_bits


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def random_weights(seed: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=source).double() for shape in ((2, 3), (4,), ())]


def update(average: Average, weights: Weights) -> None:
    average.approach(weights, *average.rates(1))
    average.n_updates += 1


def test_weights_are_the_models_own_with_float_buffers_and_without_counters() -> None:
    model = net()
    assert names_of(model) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
    ]
    weights_of(model)[5].fill_(3.0)
    assert torch.equal(model[1].running_var, torch.full((4,), 3.0))
    assert not any(tensor.requires_grad for tensor in weights_of(model))


def test_weights_by_name_load_into_another_model() -> None:
    source, target = net(), net()
    load_weights(target, named(source, weights_of(source)))
    assert same_bits(weights_of(target), weights_of(source))


def test_loading_is_strict_about_names() -> None:
    model = net()
    state = named(model, weights_of(model))
    del state["1.running_mean"]
    with pytest.raises(KeyError, match=r"1\.running_mean"):
        load_weights(model, state)


def test_copies_share_no_memory() -> None:
    into, source = random_weights(0), random_weights(1)
    copy_weights(into, source)
    source[0].zero_()
    assert same_bits(into, random_weights(1))


@pytest.mark.parametrize("ratios", [(1.0,), (0.3, 0.7), (0.2, 0.5, 0.3), (0.0, 0.4, 0.6)])
def test_a_mixture_is_the_weighted_sum(ratios: tuple[float, ...]) -> None:
    weights = [random_weights(seed) for seed in range(len(ratios))]
    before = [clones(w) for w in weights]
    expected = [
        sum(r * t for r, t in zip(ratios, ts, strict=True)) for ts in zip(*weights, strict=False)
    ]
    for found, tensor in zip(mix(weights, ratios), expected, strict=True):
        torch.testing.assert_close(found, tensor)
    assert same_bits(weights, before)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("index", range(3))
def test_every_number_of_every_tensor_must_be_finite(index: int, value: float) -> None:
    weights = random_weights(0)
    assert all_finite(weights)
    weights[index].view(-1)[-1] = value
    assert not all_finite(weights)


def test_a_mixture_of_one_expert_is_its_copy() -> None:
    weights = [random_weights(0), random_weights(1)]
    mixed = mix(weights, (0.0, 1.0))
    assert same_bits(mixed, weights[1])
    mixed[0].zero_()
    assert same_bits(weights[1], random_weights(1))


def test_a_ratio_of_0_keeps_diverged_weights_out() -> None:
    diverged = [torch.full_like(tensor, torch.nan) for tensor in random_weights(0)]
    assert same_bits(mix([diverged, random_weights(1)], (0.0, 1.0)), random_weights(1))


@pytest.mark.parametrize(
    ("config", "decays"),
    [
        (MixingConfig(decay=0.9, decay_warmup=False), [0.9] * 5),
        (MixingConfig(decay=0.0, decay_warmup=False), [0.0] * 5),
        (MixingConfig(decay=0.999), [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14]),
        (MixingConfig(decay=0.2), [1 / 10, 2 / 11, 0.2, 0.2, 0.2]),
    ],
    ids=str,
)
def test_an_average_is_the_recursion(config: MixingConfig, decays: list[float]) -> None:
    average, expected = Average(random_weights(0), config), random_weights(0)
    for step, decay in enumerate(decays, 1):
        update(average, random_weights(step))
        expected = [
            decay * e + (1 - decay) * w
            for e, w in zip(expected, random_weights(step), strict=False)
        ]
        for found, tensor in zip(average.weights, expected, strict=True):
            torch.testing.assert_close(found, tensor)
    assert average.n_updates == len(decays)


def test_a_restarted_average_has_no_past() -> None:
    config = MixingConfig(decay=0.9)
    old, new = Average(random_weights(0), config), Average(random_weights(2), config)
    update(old, random_weights(1))
    old.restart(random_weights(2))
    for average in (old, new):
        update(average, random_weights(3))
    assert same_bits(old.state_dict(), new.state_dict())


def test_an_average_continues_from_its_state() -> None:
    config = MixingConfig(decay=0.9)
    first, second = Average(random_weights(0), config), Average(random_weights(5), config)
    update(first, random_weights(1))
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        update(average, random_weights(2))
    assert same_bits(first.state_dict(), second.state_dict())
    assert first.weights[0].data_ptr() != second.weights[0].data_ptr()
