"""Folding BatchNorm changes rounding and nothing else."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.config import PGD, ModelConfig
from generalist_core.models.build import build_model
from generalist_core.training.averaging import weights_of
from generalist_core.training.folding import Folded, folded
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from tests.helpers.problems import RUNS, tiny_dataset, train_to, two_experts, with_expert

MODELS = {
    "convnet": (ModelConfig(width=4), 3),
    "normalised": (ModelConfig(width=4, mean=(0.4,), std=(0.2,)), 3),
    "resnet18": (ModelConfig(name="resnet18", width=2), 20),
    "preactresnet18": (ModelConfig(name="preactresnet18", width=2), 8),
    "wrn-28-10": (ModelConfig(name="wrn-28-10", width=1), 12),
}
X = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trained(model: nn.Module) -> nn.Module:
    """A model whose BatchNorms have seen images, and scale and shift."""
    model = model.double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
        model(X)
    return model.eval()


def folded_now(model: nn.Module) -> Folded:
    found = folded(model)
    assert found is not None
    found.refresh()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_input_gradients_are_the_models_own(name: str) -> None:
    config, n_folded = MODELS[name]
    model = trained(build_model(config, 10, (1, 8, 8), seed=0))
    found = folded_now(model)
    assert len(found.convs) == n_folded
    gradients = []
    for net in (model, found):
        x = X.clone().requires_grad_()
        logits = net(x)
        gradients.append(torch.autograd.grad(logits.square().sum(), x)[0])
        torch.testing.assert_close(logits, model(X), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_it_follows_the_model_when_it_is_refreshed() -> None:
    model = trained(build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0))
    found = folded_now(model)
    with torch.no_grad():
        for tensor in weights_of(model):
            tensor.mul_(1.3)
    assert not torch.allclose(found(X), model(X))
    found.refresh()
    torch.testing.assert_close(found(X), model(X), rtol=0, atol=1e-12)


def test_convolutions_kept_in_bfloat16_are_those_that_autocast_makes() -> None:
    model = trained(build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0)).float()
    found = []
    for dtype in (None, torch.bfloat16):
        form = folded(model, dtype)
        assert form is not None
        form.refresh()
        assert {conv.weight.dtype for conv in form.convs} == {dtype or torch.float32}
        with torch.autocast("cpu", torch.bfloat16):
            found.append(form(X.float()))
    assert torch.equal(*found)


def test_the_mode_of_the_model_stays() -> None:
    model = build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0).train()
    folded(model)
    assert all(module.training for module in model.modules())


class Twice(nn.Module):
    """One convolution used twice: folding the second use would change the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(self.conv(x))).flatten(1))


class Read(Twice):
    """What the convolution says is read beside the BatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return cast(Tensor, (self.norm(out) + out).flatten(1))


class Choosing(Twice):
    """The way goes by the images."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x)) if x.sum() > 0 else x
        return cast(Tensor, out.flatten(1))


@pytest.mark.parametrize("model", [Twice(), Read(), Choosing(), nn.Sequential(nn.Flatten())])
def test_what_cannot_be_folded_is_left_alone(model: nn.Module) -> None:
    assert folded(model) is None


def test_without_scale_without_bias_and_with_padding_of_other_kinds() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(2, affine=False),
        nn.Conv2d(2, 4, 3, groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 2, 1),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.Flatten(),
    )
    found = folded_now(trained(model))
    assert len(found.convs) == 2
    torch.testing.assert_close(found(X), model(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("field", ["fold_batchnorm", "channels_last"])
@pytest.mark.parametrize("name", ["paper", "official", "adamw, trades", "three experts"])
def test_a_training_ends_the_same_up_to_rounding(name: str, field: str) -> None:
    config = dataclasses.replace(RUNS[name], precision="float64")
    runs = [config, dataclasses.replace(config, **{field: True})]
    plain, fast = (train_to(GeneralistTrainer(run, tiny_dataset()), config.epochs) for run in runs)
    for a, b in zip(plain.experts, fast.experts, strict=True):
        for one, other in zip(a.weights, b.weights, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert plain.release() == fast.release()


def test_what_changes_rounding_is_in_the_key_of_a_warm_up() -> None:
    names = ("fold_batchnorm", "channels_last", "compile")
    changes: list[dict[str, bool]] = [{}, *({name: True} for name in names)]
    trainers = [GeneralistTrainer(two_experts(**change), tiny_dataset()) for change in changes]
    assert len({warmup_keys(trainer, "robust") for trainer in trainers}) == 4


def test_folding_spares_the_batch_norms_of_every_step_of_the_attack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    plain = F.batch_norm
    monkeypatch.setattr(F, "batch_norm", lambda *args, **kw: calls.append(1) or plain(*args, **kw))
    config = with_expert(two_experts(), "robust", attack=PGD(epsilon=0.1, steps=7))
    counts = []
    for folds in (False, True):
        trainer = GeneralistTrainer(
            dataclasses.replace(config, fold_batchnorm=folds), tiny_dataset()
        )
        calls.clear()
        trainer.train_epoch()
        counts.append(len(calls))
    assert counts[0] - counts[1] == 2 * 7 * 3
