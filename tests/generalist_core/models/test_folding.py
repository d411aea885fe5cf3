"""Folding BatchNorm changes rounding and nothing else."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils import prune

from generalist_core import once
from generalist_core.config import PGD, ModelConfig
from generalist_core.models.build import build_model
from generalist_core.models.folding import Folded, folded
from generalist_core.training.averaging import weights_of
from generalist_core.training.trainer import GeneralistTrainer
from generalist_core.training.warmups import warmup_keys
from tests.helpers.problems import RUNS, same_bits, tiny_dataset, train_to, two_experts, with_expert

MODELS = {
    "convnet": (ModelConfig(width=4), 3),
    "normalised": (ModelConfig(width=4, mean=(0.4,), std=(0.2,)), 3),
    "resnet18": (ModelConfig(name="resnet18", width=2), 20),
    "preactresnet18": (ModelConfig(name="preactresnet18", width=2), 8),
    "wrn-28-10": (ModelConfig(name="wrn-28-10", width=1), 12),
}
X = torch.rand(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SHAPE = (1, 8, 8)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == once.__name__]


def trained(model: nn.Module) -> nn.Module:
    """A model whose BatchNorms have seen images, and scale and shift."""
    model = model.double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)
        model(X)
    return model.eval()


def folded_now(model: nn.Module) -> Folded:
    found = folded(model, SHAPE)
    assert found is not None
    found.refresh()
    return found


def test_what_only_rounding_decides_is_no_difference() -> None:
    """Values that are nearly equal, of which a max-pooling takes one."""
    conv = nn.Conv2d(1, 4, 3)
    with torch.no_grad():
        conv.weight.mul_(1e-7)
        conv.bias.fill_(1)  # type: ignore[union-attr]
    assert folded(nn.Sequential(conv, nn.BatchNorm2d(4), nn.MaxPool2d(3), nn.Flatten()), SHAPE)


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
        form = folded(model, SHAPE, dtype)
        assert form is not None
        form.refresh()
        assert {conv.weight.dtype for conv in form.convs} == {dtype or torch.float32}
        with torch.autocast("cpu", torch.bfloat16):
            found.append(form(X.float()))
    assert torch.equal(*found)


def test_the_mode_of_the_model_stays() -> None:
    model = build_model(ModelConfig(width=4), 10, (1, 8, 8), seed=0).train()
    folded(model, SHAPE)
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


@pytest.mark.parametrize("model", [Twice(), Read(), nn.Sequential(nn.Flatten())])
def test_what_cannot_be_folded_is_left_alone(model: nn.Module) -> None:
    assert folded(model, SHAPE) is None


class Untraceable(nn.Module):
    """A convolution with a BatchNorm, on images that went through a function first."""

    def __init__(self, prepared: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.prepared = prepared

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(self.prepared(x))).flatten(1))


def brightened(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else x + 1


def halved(x: Tensor) -> Tensor:
    while x.norm() > 1:
        x = x / 2
    return x


def checked(x: Tensor) -> Tensor:
    assert x.min() >= 0
    return x


def checked_for_its_type(x: Tensor) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def refused_by_its_type(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError("images must be a tensor")
    return x


def darkened_in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[0] = 0
    return x


def shifted_on_its_device(x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return x + 1


UNTRACEABLES: dict[type[Exception], list[Callable[[Tensor], Tensor]]] = {
    TraceError: [
        brightened,
        halved,
        checked,
        lambda x: torch.stack(list(x)),
        lambda x: x * max(x.sum(), 1),
        lambda x: torch.cat([*x.chunk(1)]),
        lambda x: x if x.any() and x.shape[0] > 3 else -x,
    ],
    RuntimeError: [
        lambda x: x * len(x),
        lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
    ],
    TypeError: [
        refused_by_its_type,
        darkened_in_place,
        lambda x: x * float(x.sum()),
        lambda x: x + sum(range(x.shape[0])),
        lambda x: x + torch.zeros(x.shape[0], 1, 1, 1),
        lambda x: x * [1, 2, 3, 4, 5, 6][x.shape[0]],
    ],
    ValueError: [shifted_on_its_device, torch.func.vmap(lambda image: 2 * image)],
    KeyError: [lambda x: x * {"cpu": 2}[x.device.type]],
    AssertionError: [checked_for_its_type],
}


@pytest.mark.parametrize(
    ("kind", "prepared"),
    [(kind, prepared) for kind, cases in UNTRACEABLES.items() for prepared in cases],
)
def test_a_model_that_needs_real_images_is_left_alone(
    kind: type[Exception], prepared: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    """It runs on images, and torch.fx raises the kind of error that `folded` documents."""
    model = Untraceable(prepared).eval()
    assert model(torch.rand(5, 1, 2, 2)).shape == (5, 4)
    with pytest.raises(kind) as raised:
        fx.Tracer().trace(model)
    assert type(raised.value) is kind
    for _ in range(2):
        assert folded(model, SHAPE) is None
    (message,) = said(caplog)
    assert f"Untraceable: {kind.__name__}" in message


def test_a_compiled_model_is_left_alone() -> None:
    assert (
        folded(torch.compile(nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1))), SHAPE) is None
    )


def test_other_errors_of_a_model_are_not_hidden() -> None:
    """Such as an attribute that is missing in eval mode only."""
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        folded(Untraceable(lambda x: x + math.missing), SHAPE)  # type: ignore[attr-defined]


class Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.parametrize(
    "prepared",
    [
        Copied.apply,
        lambda x: x.reshape(x.shape[0], -1).reshape(x.shape),
        lambda x: x + torch.zeros(x.shape, dtype=x.dtype),
        lambda x: x * x.shape[0] / 5,
        lambda x: x + x.sum().item(),
    ],
)
def test_values_that_are_only_passed_on_are_traced(prepared: Callable[[Tensor], Tensor]) -> None:
    model = trained(Untraceable(prepared))
    found = folded_now(model)
    assert len(found.convs) == 1
    torch.testing.assert_close(found(X), model(X), rtol=0, atol=1e-12)


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


class HandNorm(nn.Module):
    """Running statistics in buffers of its own, between a convolution and a BatchNorm."""

    mean: Tensor
    var: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("var", torch.ones(n))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean((0, 2, 3)), 0.1)
                self.var.lerp_(x.var((0, 2, 3)), 0.1)
        return (x - self.mean[:, None, None]) / (self.var + 1e-5).sqrt()[:, None, None]


class Applied(nn.Module):
    """A function of the model and its images, as a layer."""

    def __init__(self, apply: Callable[[Any, Tensor], Tensor], **buffers: Tensor) -> None:
        super().__init__()
        self.apply_to = apply
        self.scale = 1.0
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self, x)


def noisy(_: Any, x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn(1, 1, 8, 8, dtype=x.dtype)


def noisy_by_one_draw(_: Any, x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn(1, 1, 8, 8)


def drawn_as_a_number(_: Any, x: Tensor) -> Tensor:
    return x * float(torch.rand(()))


def scaled_by_a_number(layer: Any, x: Tensor) -> Tensor:
    return x * float(layer.scale_of)


def scaled_by_what_training_saw(layer: Any, x: Tensor) -> Tensor:
    if layer.training:
        layer.scale = float(x.mean()) + 2
    return x * layer.scale


def switched(layer: Any, x: Tensor) -> Tensor:
    return x if bool(layer.flag) else 2 * x


def without_gradient(_: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        rounded = (8 * x).round() / 8
        kept = x * 0.5
    return rounded + x - kept


def net(layer: nn.Module, conv: nn.Module | None = None) -> nn.Sequential:
    conv = conv or nn.Conv2d(1, 2, 3, padding=1)
    return nn.Sequential(layer, conv, nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 2))


NOT_THE_MODEL = {
    "statistics of its own": lambda: net(HandNorm(1)),
    "noise": lambda: net(Applied(noisy_by_one_draw)),
    "a number that is drawn": lambda: net(Applied(drawn_as_a_number)),
    "a buffer as a number": lambda: net(Applied(scaled_by_a_number, scale_of=torch.ones(()))),
    "an attribute": lambda: net(Applied(scaled_by_what_training_saw)),
    "a flag": lambda: net(Applied(switched, flag=torch.tensor(False))),
    "no gradient": lambda: net(Applied(without_gradient)),
}


@pytest.mark.parametrize("name", NOT_THE_MODEL)
def test_a_form_that_is_another_function_is_not_used(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = NOT_THE_MODEL[name]()
    before, drawn = copy.deepcopy(model), torch.get_rng_state()
    for _ in range(2):
        assert folded(model, SHAPE) is None
    assert len(said(caplog)) == 1
    assert same_bits(model.state_dict(), before.state_dict())
    assert vars(model[0]).keys() == vars(before[0]).keys()
    assert torch.equal(torch.get_rng_state(), drawn)


def test_noise_that_is_drawn_at_each_call_is_folded_with_its_draws() -> None:
    model, seen = net(Applied(noisy)).double().eval(), []
    for logits_of in (model, folded_now(model)):
        torch.manual_seed(0)
        seen.append([logits_of(X) for _ in range(2)])
    torch.testing.assert_close(*seen, rtol=0, atol=1e-12)
    assert not torch.allclose(*seen[0])


def with_hook(register: str) -> nn.Module:
    conv = nn.Conv2d(1, 2, 3, padding=1)
    hooks: dict[str, Callable[..., Any]] = {
        "register_forward_hook": lambda *seen: 0.1 * seen[-1] + 3,
        "register_forward_pre_hook": lambda _, given: (2 * given[0],),
        "register_full_backward_hook": lambda *_: None,
    }
    getattr(conv, register)(hooks[register])
    return conv


def hooked_spectral_norm(conv: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.spectral_norm(conv)


CHANGED: dict[str, Callable[[], nn.Module]] = {
    "forward hook": lambda: with_hook("register_forward_hook"),
    "forward pre-hook": lambda: with_hook("register_forward_pre_hook"),
    "backward hook": lambda: with_hook("register_full_backward_hook"),
    "spectral norm, hook": lambda: hooked_spectral_norm(nn.Conv2d(1, 2, 3, padding=1)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 2, 3, padding=1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3, padding=1)),
    "pruned": lambda: prune.l1_unstructured(nn.Conv2d(1, 2, 3, padding=1), "weight", 0.5),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_convolution_that_does_more_than_its_class_is_not_folded(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = net(nn.Identity(), CHANGED[name]())
    assert folded(model, SHAPE) is None
    (message,) = said(caplog)
    assert message.endswith(": 1 has a hook or a parametrization")


def test_the_other_convolutions_of_such_a_model_are_folded() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.ReLU())
    model = trained(net(layer, CHANGED["spectral norm"]()))
    found = folded_now(model)
    assert len(found.convs) == 1
    torch.testing.assert_close(found(X), model(X), rtol=0, atol=1e-12)


def test_a_subclass_of_batch_norm_is_not_taken_for_one() -> None:
    model = net(nn.Identity())
    model[2].forward = lambda x: x  # type: ignore[method-assign]
    assert folded(model, SHAPE) is None


@pytest.mark.parametrize("name", ["convnet", "normalised"])
def test_usual_models_are_folded_without_a_word(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, n_folded = MODELS[name]
    found = folded(build_model(config, 10, SHAPE, seed=0), SHAPE)
    assert found is not None
    assert len(found.convs) == n_folded
    assert not said(caplog)


def test_folded_forms_are_of_one_class_for_each_architecture() -> None:
    """Else what is compiled for one model would not serve another."""
    same, again, wider, other = (
        folded(build_model(ModelConfig(name=name, width=width), 2, (1, 4, 4), seed=seed), (1, 4, 4))
        for name, width, seed in (
            ("convnet", 2, 0),
            ("convnet", 2, 1),
            ("convnet", 4, 0),
            ("preactresnet18", 2, 0),
        )
    )
    assert same is not None
    assert again is not None
    assert wider is not None
    assert other is not None
    assert type(same.graph) is type(again.graph) is type(wider.graph)
    assert type(same.graph) is not type(other.graph)
