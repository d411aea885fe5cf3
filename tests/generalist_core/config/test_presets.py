"""Presets: the published numbers, and valid runs at every length."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from generalist_core.config import DataConfig, ModelConfig, TrainConfig
from generalist_core.config.presets import PRESETS, official, paper, short

Preset = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("model", "epoch", "factor"),
    [
        ("resnet18", 0, 0.01),
        ("resnet18", 40, 0.01),
        ("resnet18", 60, 0.0055),
        ("resnet18", 80, 0.001),
        ("resnet18", 120, 0.0001),
        ("wrn-32-10", 0, 0.1),
        ("wrn-32-10", 80, 0.01),
        ("wrn-32-10", 120, 0.005),
    ],
)
def test_the_official_learning_rates(model: str, epoch: int, factor: float) -> None:
    for expert in official(model=ModelConfig(name=model)).experts:
        assert expert.optimizer.lr * expert.schedule(epoch / 120) == pytest.approx(factor)
        assert not expert.schedule.per_step


@pytest.mark.parametrize(("epoch", "ratio"), [(0, 1.0), (80, 1.0), (100, 0.7), (119, 0.415)])
def test_the_official_mixing_ratios(epoch: int, ratio: float) -> None:
    assert official().weights_at(epoch) == pytest.approx((1 - ratio, ratio))


def test_the_official_attack_is_pgd_10_with_its_step_of_0_007() -> None:
    attack = official().experts[1].attack
    assert attack is not None
    assert (attack.epsilon, attack.steps, attack.norm) == (0.031, 10, "linf")
    assert attack.relative_step_size * attack.epsilon == pytest.approx(0.007)


def test_official_and_paper_differ_in_what_is_mixed_when_and_in_the_radius() -> None:
    code, text = official(), paper()
    assert (code.mixing.source, code.sync.at) == ("averages", "every_step")
    assert (text.mixing.source, text.sync.at) == ("experts", "boundary")
    assert text.experts[1].attack.epsilon == 8 / 255
    for config in (code, text):
        assert [epoch for epoch in range(120) if config.sync.is_sync(epoch)] == list(
            range(75, 120, 5)
        )


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_are_valid_at_every_length(preset: Preset) -> None:
    for epochs in range(1, 241):
        config = preset(epochs=epochs)
        assert config.epochs == epochs
        assert any(config.sync.is_sync(epoch) for epoch in range(epochs))
        assert 1 <= config.evaluation.every_epochs <= epochs


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_carry_to_other_data_models_and_radii(preset: Preset) -> None:
    data, model = DataConfig(name="mnist"), ModelConfig(name="wrn-28-10")
    config = preset(data=data, model=model, epsilon=0.3)
    assert (config.data, config.model) == (data, model)
    attacks = [e.attack for e in config.experts if e.attack] + [
        named.attack for named in config.evaluation.attacks
    ]
    assert [attack.epsilon for attack in attacks] == [0.3, 0.3]


def test_the_short_preset_runs_on_what_every_machine_has() -> None:
    assert short().data.name == "digits"
    assert short().model == ModelConfig(name="convnet", width=8)


def test_the_official_preset_computes_as_plainly_as_it_can() -> None:
    code = official()
    assert (code.precision, code.n_accumulations) == ("float32", 1)
    assert not any((code.fold_batchnorm, code.channels_last, code.compile))


def test_compiling_has_to_be_asked_for() -> None:
    assert not any(preset().compile for preset in PRESETS.values())
