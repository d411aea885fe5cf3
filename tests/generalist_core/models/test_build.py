"""Architectures by their published size, seeded weights, and custom models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from generalist_core.config import ModelConfig
from generalist_core.fingerprints import file_digest
from generalist_core.models.build import MODELS, build_model, why_no_logits
from generalist_core.training.averaging import names_of
from generalist_core.validation import InvalidConfigError
from tests.helpers.problems import random_images, same_bits

CIFAR = (3, 32, 32)


def build(
    name: str, shape: tuple[int, int, int] = (3, 8, 8), *, seed: int = 0, **fields: object
) -> nn.Module:
    return build_model(ModelConfig(name=name, **fields), 5, shape, seed=seed)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        # 27 w + 9 (2 + 8) w^2 in convolutions, 14 w in BatchNorm, 40 w + 10 at the end; w = 16
        ("convnet", 27 * 16 + 90 * 16**2 + 14 * 16 + 650),
        ("resnet18", 11_173_962),
        # 11,171,146 without the BatchNorm before pooling (kuangliu/pytorch-cifar leaves it out); He
        # et al. 2016, "Identity mappings", has one after the last sum: 2 * 512 more.
        ("preactresnet18", 11_171_146 + 2 * 512),
        ("wrn-28-10", 36_479_194),
        # one more block per stage, each 2 * 9 n^2 in convolutions and 4 n in BatchNorm
        ("wrn-32-10", 36_479_194 + sum(18 * n**2 + 4 * n for n in (160, 320, 640))),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, n_parameters: int) -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(name=name), 10, CIFAR, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters


def test_the_table_above_has_every_model() -> None:
    assert set(MODELS) == {"convnet", "resnet18", "preactresnet18", "wrn-28-10", "wrn-32-10"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (2, 32, 32)])
def test_models_take_any_image_and_give_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, width=1).eval()
    with torch.no_grad():
        logits = model(random_images(2, *shape, dtype=torch.float32))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (4, 28, 28)])
def test_the_small_net_takes_the_smallest_image(shape: tuple[int, int, int]) -> None:
    assert build("convnet", shape, width=1).eval()(torch.zeros(1, *shape)).shape == (1, 5)


def test_width_scales_channels() -> None:
    narrow, wide = (build("resnet18", width=width).state_dict() for width in (2, 4))
    assert narrow.keys() == wide.keys()
    assert wide["0.weight"].shape[0] == 2 * narrow["0.weight"].shape[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    model = build(name, width=1).train()
    model(random_images(4, 3, 8, 8, dtype=torch.float32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", [*MODELS, "torchvision:squeezenet1_1"])
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    width = {"width": 1} if name in MODELS else {}
    state = torch.get_rng_state()
    first = build(name, seed=1, **width).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert same_bits(build(name, seed=1, **width).state_dict(), first)
    assert not same_bits(build(name, seed=2, **width).state_dict(), first)


def test_torchvisions_models_by_name() -> None:
    model = build("torchvision:squeezenet1_1", (3, 32, 32)).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


USERS_MODEL = """
from torch import nn

def tiny(n_classes, shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], n_classes))
"""


def test_a_custom_model_is_seeded_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(USERS_MODEL)
    models = [build(f"{file}:tiny", (2, 3, 4), seed=seed) for seed in (0, 0, 1)]
    assert models[0][1].weight.shape == (5, 24)
    assert torch.equal(models[0][1].weight, models[1][1].weight)
    assert not torch.equal(models[0][1].weight, models[2][1].weight)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "resnet19"}, "'resnet19'"),
        ({"name": "torchvision:resnet19"}, "torchvision's.*resnet18.*'resnet19'"),
        ({"name": "torchvision:fcn_resnet50"}, "torchvision's"),
        ({"name": "nowhere.py:net"}, r"FILE\.py:FUNCTION.*nowhere\.py"),
        ({"name": "torchvision:resnet18", "width": 2}, "except for built-in models.*width=2"),
        (
            {"name": "convnet", "mean": (0.5,), "std": (1.0,)},
            "one number per channel.*for 3 channels",
        ),
        (
            {"name": "convnet", "mean": (), "std": ()},
            r"one number per channel.*\(\) for 3 channels",
        ),
    ],
    ids=lambda case: str(case)[:40],
)
def test_models_that_cannot_be_built_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        build_model(ModelConfig(**fields), 5, (3, 8, 8), seed=0)


def test_normalisation_is_inside_the_model() -> None:
    plain = build("convnet", width=2).eval()
    mean, std = (0.5, 0.4, 0.1), (0.2, 2.0, 1.0)
    normalised = build("convnet", width=2, mean=mean, std=std).eval()
    x = random_images(3, 3, 8, 8, dtype=torch.float32)
    by_hand = torch.stack([(x[:, i] - mean[i]) / std[i] for i in range(3)], 1)
    torch.testing.assert_close(normalised(x), plain(by_hand))


def test_normalisation_follows_the_precision_and_is_no_weight() -> None:
    model = build("convnet", width=2, mean=(0.5,) * 3, std=(0.2,) * 3).double().eval()
    assert model(random_images(1, 3, 8, 8)).dtype == torch.float64
    assert not any(name in ("mean", "std") for name in names_of(model))


def test_a_model_whose_file_has_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef net(n_classes, shape): return nn.Flatten()\n")
    config = ModelConfig(name=f"{file}:net", digest=file_digest(file))
    build_model(config, 2, (1, 4, 4), seed=0)
    file.write_text(file.read_text().replace("Flatten", "Identity"))
    with pytest.raises(InvalidConfigError, match=r"must be as it was.*Put the file back"):
        build_model(config, 2, (1, 4, 4), seed=0)


def test_probabilities_are_told_from_logits() -> None:
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    for outputs in (logits.softmax(1), torch.eye(5)):
        assert "Remove the softmax" in (why_no_logits(outputs) or "")
    for outputs in (logits, logits.log_softmax(1), logits.sigmoid(), logits * torch.nan):
        assert why_no_logits(outputs) is None
