"""What cannot run is reported before any work is done."""

from __future__ import annotations

import resource
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from generalist_core.config import CustomAttack, CustomLoss, EvaluationConfig, NamedAttack
from generalist_core.config.presets import short
from generalist_core.validation import InvalidConfigError
from search.api.sweep import sweep
from search.config import Resources, SweepConfig, WarmupConfig
from search.running.preflight import (
    check_that_it_can_start,
    preflight,
    require_no_shadow,
    require_reachable,
    require_usable_process,
)
from tests.helpers import custom_functions
from tests.helpers.problems import dropout_net, tiny_dataset, two_experts, with_expert


def test_a_missing_cluster_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        request = SweepConfig(base=short(), resources=Resources(address=address))
        with pytest.raises(InvalidConfigError, match="Connection refused"):
            require_reachable(address)
        with pytest.raises(InvalidConfigError, match="running Ray cluster"):
            sweep(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("attack", "loss", "message"),
    [
        ("leaves_the_ball", "cross_entropy", "`expert robust` must run.*linf ball of radius 0.2"),
        ("pgd", "detached", "`expert robust` must run.*scalar with a gradient"),
    ],
)
def test_custom_functions_are_tried_on_two_images(attack: str, loss: str, message: str) -> None:
    file = custom_functions.__file__
    made = CustomAttack(function=f"{file}:{attack}", epsilon=0.2, forward_images=6)
    custom_loss = CustomLoss(function=f"{file}:{loss}")
    config = with_expert(two_experts(), "robust", attack=made, loss=custom_loss)
    with pytest.raises(InvalidConfigError, match=message):
        preflight(config, tiny_dataset())


def test_an_attack_that_spares_misclassified_images_is_tried_on_others() -> None:
    """Whatever their labels say: the model is untrained."""
    file = custom_functions.__file__
    attack = CustomAttack(function=f"{file}:spares_broken", epsilon=0.1, forward_images=6)
    judged = EvaluationConfig(attacks=(NamedAttack(name="robust", attack=attack),))
    for seed in range(4):
        with pytest.raises(InvalidConfigError, match=r"attack robust` must run.*=6 .*got 9"):
            preflight(two_experts(evaluation=judged, seed=seed), tiny_dataset())


class Tutorial(nn.Module):
    """A small network whose parts a test replaces."""

    def __init__(self, n_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 4, 3, padding=1)
        self.head = nn.Linear(4 * shape[1] * shape[2], n_classes)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x)).flatten(1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x))


class Viewing(Tutorial):
    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return x.view(x.size(0), -1)


class ManyOutputs(Tutorial):
    def forward(self, x: Tensor) -> Any:
        logits = self.head(self.features(x))
        return (logits, logits) if self.training else logits


class InPlace(Tutorial):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x.sub_(0.5))


class Cut(Tutorial):
    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().features(x)


class Probabilities(Tutorial):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(1)


class Reentrant(Tutorial):
    def features(self, x: Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return checkpoint(super().features, x, use_reentrant=True)


class Frozen(Tutorial):
    def __init__(self, n_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__(n_classes, shape)
        self.requires_grad_(False)


class FailsInTraining(Tutorial):
    def forward(self, x: Tensor) -> Any:
        assert not self.training
        return super().forward(x)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ManyOutputs, "in train mode too, but got tuple"),
        (InPlace, "leave its images as they are|leaf Variable that requires grad"),
        (Cut, "differentiable with respect to the images"),
        (Probabilities, "Remove the softmax"),
        (Reentrant, r"`torch\.autograd\.grad` must be able.* need use_reentrant=False"),
        (Frozen, "At least one parameter must require a gradient"),
        (FailsInTraining, "must run, but AssertionError"),
    ],
)
def test_a_model_of_which_every_trial_would_fail_is_refused(
    model: type[Tutorial], message: str, *, channels_last: bool
) -> None:
    config = replace(two_experts(), channels_last=channels_last, fold_batchnorm=True)
    with pytest.raises(InvalidConfigError, match=message):
        preflight(config, tiny_dataset(), model)


def test_where_only_channels_last_fails_training_goes_on_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = replace(two_experts(), channels_last=True, fold_batchnorm=True)
    assert preflight(config, tiny_dataset(), Viewing) == replace(config, channels_last=False)
    (record,) = caplog.records
    assert "without `channels_last`" in record.getMessage()
    assert preflight(config, tiny_dataset(), Tutorial) == config
    request = SweepConfig(base=config, resources=Resources(local=True))
    able, _ = check_that_it_can_start(request, tiny_dataset(), Viewing)
    assert not able.base.channels_last


class Diverging(Tutorial):
    """Weights that are infinite after the first step."""

    def __init__(self, n_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__(n_classes, shape)
        self.conv.weight.register_hook(lambda gradient: gradient * torch.inf)


def test_a_model_that_diverges_in_the_rehearsal_may_be_trained() -> None:
    """A trial would say so; custom attacks on infinite weights return NaN, which is refused."""
    file = custom_functions.__file__
    attack = CustomAttack(function=f"{file}:pgd", epsilon=0.1, forward_images=6)
    config = two_experts()
    attacked = replace(config.evaluation, attacks=(NamedAttack(name="robust", attack=attack),))
    config = replace(config, evaluation=attacked)
    assert preflight(config, tiny_dataset(), Diverging) == config


def test_the_rehearsal_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    preflight(two_experts(), tiny_dataset(), dropout_net)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("file", ["spaces.py", "search/__init__.py", "generalist_core.py"])
def test_a_file_that_shadows_a_package_is_named(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_no_shadow(tmp_path)
    (tmp_path / "spaces").mkdir()
    require_no_shadow(tmp_path)  # a folder alone gives way to a package
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(InvalidConfigError, match=rf"no module named .*{file}.*--local"):
        check_that_it_can_start(SweepConfig(base=short()), tiny_dataset(), None)
    local = SweepConfig(base=two_experts(), resources=Resources(local=True))
    check_that_it_can_start(local, tiny_dataset(), None)


@pytest.mark.parametrize(("local", "needed"), [(True, "6 GB"), (False, "16 GB")])
def test_too_little_address_space_is_named(
    local: bool, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4_000_000_000, 4_000_000_000))
    with pytest.raises(InvalidConfigError, match=rf"at least {needed} .* is 4.0 GB\. .*ulimit"):
        require_usable_process(local=local)


@pytest.mark.parametrize("name", ["HOME", "TMPDIR", "RAY_TMPDIR"])
def test_folders_that_ray_cannot_make_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/proc/nowhere")
    require_usable_process(local=True)
    with pytest.raises(InvalidConfigError, match=f"{name} must name a folder"):
        require_usable_process(local=False)


@pytest.mark.parametrize("asked", [{"cpus_per_trial": 10_000.0}, {"gpus_per_trial": 1.0}])
def test_a_trial_that_fits_nowhere_is_refused_before_the_folder_is_begun(
    tmp_path: Path, no_ray: None, asked: dict[str, float]
) -> None:
    request = SweepConfig(base=short(), resources=Resources(**asked))  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match=r"A trial must fit on a machine|0 GPUs"):
        sweep(request, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("out", "store"), [("a", "a/store"), ("a/out", "a"), ("a", "a")])
def test_a_store_and_a_new_sweep_are_apart(tmp_path: Path, out: str, store: str) -> None:
    warmups = WarmupConfig(folder=str(tmp_path / store))
    request = SweepConfig(base=short(), warmups=warmups, resources=Resources(local=True))
    with pytest.raises(InvalidConfigError, match="`warmups` must be outside the output folder"):
        sweep(request, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


def test_a_request_that_is_refused_leaves_no_store(tmp_path: Path) -> None:
    def silent(*_: object) -> nn.Module:
        return nn.Identity()

    warmups = WarmupConfig(folder=str(tmp_path / "store"))
    request = SweepConfig(base=two_experts(), warmups=warmups, resources=Resources(local=True))
    with pytest.raises(InvalidConfigError):
        check_that_it_can_start(request, tiny_dataset(), silent)
    assert list(tmp_path.iterdir()) == []
