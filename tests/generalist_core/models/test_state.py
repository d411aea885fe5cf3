"""Every kind of tensor is averaged, recomputed or left, in training as in what is released."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from generalist_core.config import SGD, Adam, Optimizer
from generalist_core.models.state import (
    BufferPlaces,
    averaged_tensors,
    copied,
    fix_averaged,
    load_state,
    moved,
    recompute_derived,
    state_of,
)
from generalist_core.training.averaging import load_weights, mix, named, names_of, weights_of
from generalist_core.training.evaluator import evaluate
from generalist_core.training.trainer import DivergedError, GeneralistTrainer
from tests.helpers.problems import same_bits, tiny_dataset, train_to, two_experts, with_expert

SHAPE = (1, 4, 4)


class Centred(nn.Module):
    """A linear model of images less their running mean, in a buffer that a subclass updates."""

    mean: Tensor

    def __init__(self, *, persistent: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.register_buffer("mean", torch.zeros(SHAPE), persistent=persistent)

    def update(self, mean: Tensor) -> None:
        with torch.no_grad():
            self.mean.lerp_(mean, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.update(x.mean(0))
        logits: Tensor = self.linear(10 * (x - self.mean).flatten(1))
        return logits


class Reassigned(Centred):
    def update(self, mean: Tensor) -> None:
        self.mean = 0.7 * self.mean + 0.3 * mean


class ReassignedData(Centred):
    def update(self, mean: Tensor) -> None:
        self.mean.data = 0.7 * self.mean.data + 0.3 * mean


class Fourier(nn.Module):
    """A learnt filter in the frequency domain, and a buffer without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.ones(1, 4, 3, dtype=torch.cfloat))
        self.linear = nn.Linear(16, 2)
        self.register_buffer("nothing", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[-2:])
        logits: Tensor = self.linear(filtered.flatten(1))
        return logits


def parametrized() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Flatten(), parametrizations.spectral_norm(nn.Linear(12, 2))
    )


def hooked() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(
            hooked_spectral_norm(nn.Conv2d(1, 3, 3)), nn.Flatten(), nn.Linear(12, 2)
        )


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def weight_normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(16, 2)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "not persistent": lambda: Centred(persistent=False),
    "reassigned": Reassigned,
    "not persistent, reassigned": lambda: Reassigned(persistent=False),
    "memory reassigned": ReassignedData,
    "complex and empty": Fourier,
    "pruned": pruned,
    "weight norm as a hook": weight_normed,
    "spectral norm": parametrized,
    "spectral norm as a hook": hooked,
}


def trained(build: Callable[[], nn.Module], optimizer: Optimizer) -> GeneralistTrainer:
    config = with_expert(two_experts(), "robust", optimizer=optimizer)
    return train_to(GeneralistTrainer(config, tiny_dataset(), model=lambda *_: build()), 3)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), Adam(lr=0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", MODELS)
def test_a_released_mixture_is_what_its_averages_make_in_a_new_model(
    name: str, optimizer: Optimizer
) -> None:
    trainer, data = trained(MODELS[name], optimizer), tiny_dataset()
    for point in trainer.release([0.0, 0.4, 1.0]):
        model = MODELS[name]().eval()
        states = trainer.averages()
        averages = [list(states[expert.config.name].values()) for expert in trainer.experts]
        mixed = mix(averages, (1 - point.mixing_ratio, point.mixing_ratio))  # type: ignore[operator]
        load_weights(model, dict(zip(names_of(model), mixed, strict=True)))
        verdicts = evaluate(
            model, data.validation, trainer.config.evaluation, seed=0, dtype=torch.float32
        )
        assert point.accuracies == {key: v.double().mean() for key, v in verdicts.items()}


@pytest.mark.parametrize("name", [name for name in MODELS if "spectral" not in name])
def test_the_average_follows_every_tensor_of_the_live_model(name: str) -> None:
    """With decay 0 the average is the model."""
    config = two_experts()
    config = dataclasses.replace(config, mixing=dataclasses.replace(config.mixing, decay=0.0))
    trainer = GeneralistTrainer(config, tiny_dataset(), model=lambda *_: MODELS[name]())
    train_to(trainer, 3)
    for expert in trainer.experts:
        model = expert.model
        live = [*model.parameters(), *model.buffers()]
        assert sorted(names_of(model)) == sorted(
            [n for n, _ in model.named_parameters()] + [n for n, _ in model.named_buffers()]
        )
        for tensor in live:
            assert any(torch.equal(tensor, own) for own in expert.average.weights)


@pytest.mark.parametrize("name", MODELS)
def test_a_training_continues_from_its_state(name: str, tmp_path: object) -> None:
    whole, part = (
        GeneralistTrainer(two_experts(), tiny_dataset(), model=lambda *_: MODELS[name]())
        for _ in range(2)
    )
    again = GeneralistTrainer(two_experts(), tiny_dataset(), model=lambda *_: MODELS[name]())
    again.load_state_dict(copy.deepcopy(train_to(part, 1).state_dict()))
    assert same_bits(train_to(again, 3).state_dict(), train_to(whole, 3).state_dict())


@pytest.mark.parametrize("build", [parametrized, hooked])
def test_layers_with_spectral_norm_have_norm_1_at_every_mixture(
    build: Callable[[], nn.Module],
) -> None:
    trainer = trained(build, SGD(lr=0.5))
    for ratio in (0.0, 0.3, 1.0):
        model = build().eval()
        load_weights(model, named(model, trainer.mixture(ratio)))
        model(torch.rand(1, *SHAPE))
        layer = model[2] if build is parametrized else model[0]  # type: ignore[index]
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-5, atol=0)


def test_spectral_norm_after_another_parametrization_is_of_that_ones_weight() -> None:
    layer = parametrizations.spectral_norm(parametrizations.weight_norm(nn.Linear(6, 4))).eval()
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(torch.rand(4, 1) + 1)
    recompute_derived(layer)
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(1.0))


def test_weights_that_are_not_finite_have_no_singular_vectors() -> None:
    model = parametrized()
    layer = model[2].parametrizations.weight  # type: ignore[index,union-attr]
    before = layer[0]._u.clone()
    with torch.no_grad():
        layer.original.fill_(torch.nan)
    recompute_derived(model)
    assert torch.equal(layer[0]._u, before)


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_of_a_model_in_use_shares_nothing(name: str) -> None:
    model, x = MODELS[name](), torch.rand(2, *SHAPE)
    expected = model.eval()(x)
    again = copied(model)
    assert torch.equal(again(x), expected)
    for tensor in averaged_tensors(again).values():
        tensor.add_(1)
    assert torch.equal(model(x), expected)


def test_masks_counters_and_vectors_are_not_averaged() -> None:
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(2, 2)), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    assert list(averaged_tensors(model)) == [
        "0.bias",
        "0.parametrizations.weight.original",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
    ]


def test_a_buffer_that_diverges_stays_among_the_averaged() -> None:
    model = Centred()
    model.register_buffer("mask", torch.full((2,), -torch.inf))
    fix_averaged(model)
    again = copy.deepcopy(model)
    for net in (model, again):
        net.mean.fill_(torch.nan)
        net.mask.fill_(1.0)
        assert list(averaged_tensors(net)) == ["mean", "linear.weight", "linear.bias"]
    assert model.state_dict().keys() == {"mean", "mask", "linear.weight", "linear.bias"}


class Exploding(Centred):
    def update(self, mean: Tensor) -> None:
        self.mean = self.mean / 0


@pytest.mark.parametrize("at", ["boundary", "every_step"])
def test_a_training_whose_buffer_diverges_says_so(at: Any) -> None:
    config = two_experts()
    sync = dataclasses.replace(config.sync, at=at, start_epoch=0, every_epochs=1)
    config = dataclasses.replace(config, sync=sync)
    trainer = GeneralistTrainer(config, tiny_dataset(), model=lambda *_: Exploding())
    with pytest.raises(DivergedError, match="diverged in epoch"):
        train_to(trainer, config.epochs)


def test_a_state_holds_buffers_that_are_not_persistent() -> None:
    source, target = Centred(persistent=False), Centred(persistent=False)
    source.mean.fill_(0.5)
    load_state(target, state_of(source))
    assert same_bits(weights_of(target), weights_of(source))
    load_state(target, Centred().state_dict() | {"mean": source.mean})
    plain = target.state_dict()
    load_state(target, plain)
    assert "mean" not in plain
    assert torch.equal(target.mean, source.mean)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, r"\['linear.bias', 'linear.weight'\] are missing"),
        (state_of(Centred()) | {"other": torch.ones(1)}, r"\['other'\] are unknown"),
        (state_of(Centred()) | {"linear.bias": torch.ones(5)}, "size mismatch for linear.bias"),
    ],
)
def test_a_state_must_be_the_models(state: dict[str, Tensor], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        load_state(Centred(persistent=False), state)


def test_complex_numbers_stay_complex_in_another_precision() -> None:
    model = moved(Fourier(), torch.device("cpu"), torch.float64)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64, torch.complex128}
    assert model(torch.rand(2, *SHAPE, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("build", [Centred, Reassigned, ReassignedData])
def test_a_buffer_keeps_its_place(build: type[Centred]) -> None:
    model = build().train()
    (mean,) = (tensor for name, tensor in averaged_tensors(model).items() if name == "mean")
    buffer, places, x = model.mean, BufferPlaces(model), torch.rand(3, *SHAPE)
    for _ in range(2):
        model(x)
        places.restore()
    assert model.mean is buffer
    torch.testing.assert_close(mean, (1 - 0.7**2) * x.mean(0))
    assert buffer.data_ptr() == mean.data_ptr()
