"""Frozen twins, and compiled forwards against plain ones."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from generalist_core import once
from generalist_core.attacks.gradient import Logits
from generalist_core.config import PGD, TRADES, ModelConfig, TrainConfig
from generalist_core.models.build import build_model
from generalist_core.training.averaging import weights_of
from generalist_core.training.experts import Expert
from generalist_core.training.forward import compiled, forwards_of, frozen_twin
from generalist_core.training.trainer import GeneralistTrainer
from tests.helpers.problems import (
    ROBUST,
    same_bits,
    tiny_dataset,
    train_to,
    two_experts,
    with_expert,
)

Change = Callable[[Logits], Logits]

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


def uncompiled(monkeypatch: pytest.MonkeyPatch, change: Change = lambda f: f) -> list[Logits]:
    """The forwards that `torch.compile` is given, of which it returns what `change` makes."""
    given: list[Logits] = []

    def compile_(forward: Logits, **_: Any) -> Logits:
        given.append(forward)
        return change(forward)

    monkeypatch.setattr("torch.compile", compile_)
    monkeypatch.setattr("generalist_core.models.forms._TRIED", {})
    return given


@pytest.mark.parametrize("folds", [False, True])
def test_what_is_compiled_for_the_attack_holds_no_weight_that_takes_a_gradient(
    folds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = uncompiled(monkeypatch)
    run = two_experts(compile=True, fold_batchnorm=folds, batch_size=4)
    Expert(ROBUST, model(), run, n_classes=2, shape=(1, 4, 4))
    assert len(given) == 4  # one of a copy and of the model each
    takes = []
    for forward in given:
        forward(x := X.clone().requires_grad_()).sum().backward()
        (module,) = (c.cell_contents for c in forward.__closure__ if c.cell_contents is not False)
        takes.append(any(parameter.requires_grad for parameter in module.parameters()))
        assert x.grad is not None
    assert takes == [True, True, False, False]


def at_first_call(forward: Logits) -> Logits:
    """A compiled forward that keeps its first logits for images of a shape."""
    seen: dict[torch.Size, Tensor] = {}
    return lambda x: seen.setdefault(x.shape, forward(x).detach()) + 0 * forward(x)


class Clamping(nn.Module):
    """A running mean that eval mode reassigns; this changes nothing, but leaves its memory."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 4, 4))
        self.linear = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        else:
            self.mean = self.mean.clamp(min=0)
        return cast(Tensor, self.linear((x - self.mean).flatten(1)))


@pytest.mark.parametrize(
    ("build", "change", "not_compiled"),
    [
        (model, lambda forward: forward, []),
        (model, at_first_call, ["Training is not compiled", "The attack is not compiled"]),
        (Clamping, lambda forward: forward, ["The attack is not compiled"]),
    ],
)
def test_a_compiled_form_that_is_another_function_is_not_used(
    build: Callable[[], nn.Module],
    change: Change,
    not_compiled: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = uncompiled(monkeypatch, change)
    for _ in range(2):
        torch.manual_seed(0)
        run = two_experts(compile=True, batch_size=4)
        expert = Expert(ROBUST, build(), run, n_classes=2, shape=(1, 4, 4))
        expert.model.train()(X)
        plain, x = expert.model.eval(), X.clone().requires_grad_()
        assert torch.equal(expert.forwards.of_images(x), plain(x))
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == not_compiled
    assert len(given) == 2 + 2 * (2 - len(not_compiled))  # both are tried out once


def test_only_the_forwards_that_were_shown_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a gradient, or with one of the images in training, the plain forward runs."""
    given = uncompiled(monkeypatch, lambda forward: lambda x: forward(x) + 1)
    net = model().eval()
    of_weights, of_images = (compiled(net, of_images=which) for which in (False, True))
    wanted = X.clone().requires_grad_()
    for forward, x, is_compiled in (
        (of_weights, X, True),
        (of_weights, wanted, False),
        (of_images, wanted, True),
        (of_images, X, False),
    ):
        assert torch.equal(forward(x), net(x) + is_compiled)
        with torch.no_grad():
            assert torch.equal(forward(x), net(x))
    assert given == [net, net]


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


class Dropping(nn.Module):
    """A convolution with statistics, dropout and a buffer."""

    n_seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(64, 2),
        )
        self.register_buffer("n_seen", torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.net(x) * self.n_seen)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.usefixtures("one_compilation")
def test_what_torch_compiles_is_shown_and_costs_no_further_compilation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net, run = Dropping(), two_experts(compile=True, batch_size=5)
    forwards = forwards_of(net, run, (1, 4, 4), is_attacked=True)
    assert not [record for record in caplog.records if record.name == once.__name__]
    n_compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert n_compiled >= 2
    for logits_of, x in (
        (forwards.of_weights, X),
        (forwards.of_images, X.clone().requires_grad_()),
    ):
        seen = []
        for forward in (logits_of, net.train(logits_of is forwards.of_weights)):
            torch.manual_seed(0)
            seen.append(forward(x))
        torch.testing.assert_close(*seen)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == n_compiled


def trained(config: TrainConfig, **changes: bool) -> GeneralistTrainer:
    changed = dataclasses.replace(config, **changes)
    return train_to(GeneralistTrainer(changed, tiny_dataset()), 3)


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch trace what is to be compiled, and run it as it is."""
    compile_ = torch.compile
    monkeypatch.setattr(
        "torch.compile",
        lambda forward, **_: compile_(forward, backend="eager", dynamic=False),
    )
    torch.compiler.reset()
    counters.clear()


@pytest.mark.usefixtures("compiling")
def test_a_process_meets_batches_of_more_sizes_than_torch_compiles_by_default() -> None:
    found = []
    for batch_size in range(2, 14):
        run = two_experts(compile=True, batch_size=batch_size)
        train_to(GeneralistTrainer(run, tiny_dataset()), 1)
        found.append(counters["stats"]["unique_graphs"])
    assert all(before < after for before, after in pairwise(found))


@pytest.mark.usefixtures("compiling")
def test_trainers_of_one_architecture_share_what_is_compiled() -> None:
    run = two_experts(compile=True, fold_batchnorm=True)
    found = []
    for seed in range(4):
        train_to(GeneralistTrainer(dataclasses.replace(run, seed=seed), tiny_dataset()), 1)
        found.append(counters["stats"]["unique_graphs"])
    assert found == [found[0]] * 4
    assert 0 < found[0] <= 4


@pytest.mark.usefixtures("compiling")
def test_a_trainer_begins_another_run_without_compiling_anew() -> None:
    """What the compiler notes in the tensors of a model is not taken for a change of the model."""
    run = two_experts(compile=True, fold_batchnorm=True)
    trainer = train_to(GeneralistTrainer(run, tiny_dataset()), run.epochs)
    n_compiled = counters["stats"]["unique_graphs"]
    assert n_compiled > 0
    other = dataclasses.replace(run, seed=1)
    assert trainer.begin_anew(other)
    train_to(trainer, run.epochs)
    assert counters["stats"]["unique_graphs"] == n_compiled
    new = train_to(GeneralistTrainer(other, tiny_dataset()), run.epochs)
    assert same_bits(trainer.averages(), new.averages())
