"""Frozen twins, and compiled forwards against plain ones."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from generalist_core.config import PGD, TRADES, ModelConfig, TrainConfig
from generalist_core.models.build import build_model
from generalist_core.training.averaging import weights_of
from generalist_core.training.experts import Expert
from generalist_core.training.forward import frozen_twin
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import ROBUST, tiny_dataset, train_to, two_experts, with_expert

X = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    return build_model(ModelConfig(name="preactresnet18", width=2), 2, (1, 4, 4), seed=0)


def test_a_twin_follows_the_weights_and_statistics_of_its_model() -> None:
    original = model().train()
    twin = frozen_twin(original)
    original(X)
    with torch.no_grad():
        for tensor in weights_of(original):
            tensor.mul_(1.1)
    assert torch.equal(twin(X), original.eval()(X))
    assert twin.state_dict().keys() == original.state_dict().keys()


def test_a_twin_takes_no_gradients_and_leaves_the_model_as_it_is() -> None:
    original = model().train()
    twin = frozen_twin(original)
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not any(part.training for part in twin.modules())
    assert all(parameter.requires_grad for parameter in original.parameters())
    assert all(part.training for part in original.modules())


@pytest.mark.parametrize("folds", [False, True])
def test_what_is_compiled_for_the_attack_holds_no_weight_that_takes_a_gradient(
    folds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled before the first call, so the forwards can be seen as they are given."""
    given = []
    monkeypatch.setattr("torch.compile", lambda forward, **how: given.append(forward) or forward)
    run = two_experts(compile=True, fold_batchnorm=folds)
    Expert(ROBUST, model(), run, n_classes=2, shape=(1, 4, 4))
    training, attack = given
    takes = []
    for forward in (training, attack):
        forward(x := X.clone().requires_grad_()).sum().backward()
        (module,) = (c.cell_contents for c in forward.__closure__ if c.cell_contents is not False)
        takes.append(any(parameter.requires_grad for parameter in module.parameters()))
        assert x.grad is not None
    assert takes == [True, False]


@pytest.fixture
def one_compilation() -> Iterator[None]:
    """Nothing that was compiled before the test or in it is left over."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


RUNS = {
    "plain": two_experts(),
    "all": with_expert(
        two_experts(fold_batchnorm=True, channels_last=True, n_accumulations=2),
        "robust",
        attack=PGD(epsilon=0.1, steps=2),
        loss=TRADES(),
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("one_compilation")
@pytest.mark.parametrize("name", RUNS)
def test_a_compiled_training_ends_as_a_plain_one_up_to_rounding(name: str) -> None:
    """PGD is on the cross-entropy: by its image the gradient of the divergence is all rounding."""
    plain, fast = (trained(RUNS[name], compile=compiles) for compiles in (False, True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    for a, b in zip(plain.experts, fast.experts, strict=True):
        assert a.model.state_dict().keys() == b.model.state_dict().keys()
        for one, other in zip(a.weights, b.weights, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    for one, other in zip(plain.release(), fast.release(), strict=True):
        assert one.accuracies == pytest.approx(other.accuracies, abs=1 / 12)


def trained(config: TrainConfig, **changes: bool) -> GeneralistTrainer:
    changed = dataclasses.replace(config, **changes)
    return train_to(GeneralistTrainer(changed, tiny_dataset()), 3)
