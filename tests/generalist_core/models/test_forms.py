"""Another form of a model is told from the model whatever makes it another function."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generalist_core.models.forms import Logits, is_same_function, trial_images, tried_once
from generalist_core.randomness import global_seed
from tests.helpers.problems import same_bits

IMAGES = trial_images(3, (1, 4, 4), torch.device("cpu"), torch.float32)


def net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), *layers)


def itself(model: nn.Module) -> Logits:
    return model


def of_first_weights(model: nn.Module) -> Logits:
    return copy.deepcopy(model).eval()


def of_weights_at_the_first_call(model: nn.Module) -> Logits:
    kept: list[nn.Module] = []

    def logits_of(x: Tensor) -> Tensor:
        if not kept:
            kept.append(copy.deepcopy(model))
        logits: Tensor = kept[0](x)
        return logits

    return logits_of


def of_first_buffers(model: nn.Module) -> Logits:
    twin = copy.deepcopy(model, {id(p): p for p in model.parameters()})

    def logits_of(x: Tensor) -> Tensor:
        logits: Tensor = twin.train(model.training)(x)
        return logits

    return logits_of


def of_the_first_call(model: nn.Module) -> Logits:
    seen: dict[bytes, Tensor] = {}
    return lambda x: seen.setdefault(x.detach().numpy().tobytes(), model(x))


def without_gradient(model: nn.Module) -> Logits:
    return lambda x: model(x).detach() + 0 * model(x)


def of_eval_mode(model: nn.Module) -> Logits:
    def logits_of(x: Tensor) -> Tensor:
        logits: Tensor = model.eval()(x)
        return logits

    return logits_of


def raising(error: Exception) -> Callable[[nn.Module], Logits]:
    def form_of(_: nn.Module) -> Logits:
        raise error

    return form_of


OTHERS: dict[str, tuple[Any, bool, str]] = {
    "first weights": (of_first_weights, False, "it has other logits"),
    "weights at the first call": (of_weights_at_the_first_call, False, "it has other logits"),
    "first buffers": (of_first_buffers, False, "it has other logits"),
    "logits of the first call": (of_the_first_call, False, "it has other gradients"),
    "no gradient of images": (without_gradient, False, "it has other gradients"),
    "no gradient of weights": (without_gradient, True, "it has other gradients"),
    "eval mode in training": (of_eval_mode, True, "it has other logits"),
    "statistics are left": (of_first_buffers, True, "it has other buffers"),
    "cannot be made": (raising(LookupError("no such node")), False, "LookupError: no such node"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_told_and_said_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    form_of, trains, reason = OTHERS[name]
    for _ in range(2):
        assert not is_same_function(net(), itself, form_of, IMAGES, what="It is bad", trains=trains)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"It is bad in torch.nn.modules.container.Sequential: {reason}"
    )


@pytest.mark.parametrize("trains", [False, True])
def test_the_same_function_is_seen_and_its_model_is_left_alone(
    caplog: pytest.LogCaptureFixture, *, trains: bool
) -> None:
    model = net(nn.Linear(8, 3), nn.Dropout())
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert is_same_function(model, itself, itself, IMAGES, what="", trains=trains)
    assert same_bits(model.state_dict(), before)
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not caplog.records


def test_draws_must_be_those_of_the_model() -> None:
    mask = torch.rand(3, 8) < 0.5
    for form_of, is_same in (
        (lambda model: lambda x: F.dropout(model(x), 0.5), True),
        (lambda model: lambda x: 2 * mask * model(x), False),
    ):
        plain_of = lambda model: lambda x: F.dropout(model(x), 0.5)  # noqa: E731
        assert is_same_function(net(), plain_of, form_of, IMAGES, what="") == is_same


@pytest.mark.parametrize(("excess", "is_same"), [(0.3, True), (0.6, False)])
def test_rounding_to_bfloat16_may_change_gradients_by_less_than_half(
    excess: float, *, is_same: bool
) -> None:
    def steeper(model: nn.Module) -> Logits:
        return lambda x: model(x) + excess * (model(x) - model(x).detach())

    found = is_same_function(net(), itself, steeper, IMAGES, what="", tolerance=0.1)
    assert found == is_same


def test_what_overflows_is_told_as_that(caplog: pytest.LogCaptureFixture) -> None:
    def grown(model: nn.Module) -> Logits:
        return lambda x: 1e38 * (1e38 * model(x))

    assert not is_same_function(net(), grown, grown, IMAGES, what="")
    assert "are not finite" in caplog.text


def test_a_lack_of_memory_is_no_difference() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        is_same_function(net(), itself, raising(torch.OutOfMemoryError()), IMAGES, what="")


def test_a_form_of_equal_models_is_tried_once() -> None:
    """And again for other weights, images and forms, or if models cannot be told to be equal."""
    n_tried: list[int] = []

    def try_out() -> bool:
        n_tried.append(1)
        return len(n_tried) % 2 == 1

    def found(seed: int, *, form: str = "form", n: int = 2, part: object = None) -> bool:
        with global_seed(seed, torch.device("cpu")):
            model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        model.part = part  # type: ignore[assignment]
        return tried_once(model, [x[:n] for x in IMAGES], form, try_out)

    outcomes = [found(0), found(0), found(1), found(1), found(0, form="other"), found(0, n=1)]
    assert outcomes == [True, True, False, False, True, False]
    assert [found(0, part=threading.Lock()) for _ in range(2)] == [True, False]
