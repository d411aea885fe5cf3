"""Presets: the published numbers, and valid runs at every length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from generalist_core.config import DataConfig, InvalidConfigError, ModelConfig, TrainConfig
from generalist_core.config.presets import PRESETS, official, paper, short
from generalist_core.training.warmup_keys import progress_at

Preset = Callable[..., TrainConfig]


KNOTS = [0, 40, 80, 120]
"""The epochs between which the official code interpolates; it numbers them from 1 to 120."""

RATES = {"resnet18": [0.01, 0.01, 0.001, 0.0001], "wrn-32-10": [0.1, 0.1, 0.01, 0.005]}


@pytest.mark.parametrize("model", RATES)
def test_every_official_epoch_has_its_rate_ratio_and_sync(model: str) -> None:
    config = official(model=ModelConfig(name=model))
    for epoch in range(120):
        number = epoch + 1
        rate, ratio = (
            np.interp(number, KNOTS, RATES[model]),
            np.interp(number, KNOTS, [1, 1, 1, 0.4]),
        )
        for expert in config.experts:
            progress = progress_at(config, expert, epoch, step=2, n_batches=3)
            assert expert.optimizer.lr * expert.schedule(progress) == pytest.approx(rate)
        assert config.weights_at(epoch) == pytest.approx((1 - ratio, ratio))
        assert config.sync.is_sync(epoch) == (number >= 75 and number % 5 == 0)
    assert rate == pytest.approx(RATES[model][-1])
    assert config.weights_at(119) == pytest.approx((0.6, 0.4))


@pytest.mark.parametrize("model", RATES)
def test_the_rates_of_the_paper_are_those_at_the_start_of_an_epoch(model: str) -> None:
    config = paper(model=ModelConfig(name=model))
    for epoch in range(120):
        rate, ratio = np.interp(epoch, KNOTS, RATES[model]), np.interp(epoch, KNOTS, [1, 1, 1, 0.4])
        for expert in config.experts:
            progress = progress_at(config, expert, epoch, step=2, n_batches=3)
            assert expert.optimizer.lr * expert.schedule(progress) == pytest.approx(rate)
        assert config.weights_at(epoch) == pytest.approx((1 - ratio, ratio))


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 24, 100, 240])
def test_the_last_official_epoch_has_the_last_values_at_every_length(epochs: int) -> None:
    config = official(epochs=epochs)
    last = epochs - 1
    assert config.weights_at(last) == pytest.approx((0.6, 0.4))
    assert config.experts[0].schedule(config.progress_in(last)) == pytest.approx(0.01)
    assert config.sync.is_sync(last) or epochs % 24 != 0


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
    for config, first in ((code, 74), (text, 75)):
        syncs = [epoch for epoch in range(120) if config.sync.is_sync(epoch)]
        assert syncs == list(range(first, 120, 5))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_are_valid_at_every_length(preset: Preset) -> None:
    for epochs in range(1, 241):
        config = preset(epochs=epochs)
        assert config.epochs == epochs
        assert any(config.sync.is_sync(epoch) for epoch in range(epochs))
        assert 1 <= config.evaluation.every_epochs <= epochs


ONE_NORM = {name: preset for name, preset in PRESETS.items() if "linf+l2" not in name}


@pytest.mark.parametrize("preset", ONE_NORM.values(), ids=ONE_NORM)
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
    assert (code.precision, code.n_accumulations) == ("tfloat32-convolutions", 1)
    assert not any((code.fold_batchnorm, code.channels_last, code.compile))


@pytest.mark.parametrize("preset", [paper, short])
def test_what_is_ours_chooses_its_precision_by_the_device(preset: Preset) -> None:
    assert preset().precision == "auto"


def test_compiling_has_to_be_asked_for() -> None:
    assert not any(preset().compile for preset in PRESETS.values())


@pytest.mark.parametrize("name", ["natural+linf", "natural+l2", "linf+l2", "natural+linf+l2"])
def test_generalist_plus_plus_has_an_expert_per_task_and_the_papers_settings(name: str) -> None:
    config, published = PRESETS[name](), paper()
    tasks = name.split("+")
    assert [expert.name for expert in config.experts] == tasks
    assert config.evaluation.objective_names == ("natural", *(t for t in tasks if t != "natural"))
    assert config.sync == published.sync
    radii = {"linf": 8 / 255, "l2": 0.5}
    for expert in config.experts:
        if expert.attack is None:
            assert expert == published.experts[0]
        else:
            assert (expert.attack.norm, expert.attack.epsilon) == (expert.name, radii[expert.name])
            assert expert.optimizer == published.experts[1].optimizer
    n_robust = len(tasks) - ("natural" in tasks)
    start, end = config.weights_at(0)[-n_robust:], config.mixing.ratio.weights(1.0, len(tasks))
    assert len({*start}) == 1
    assert sum(start) == pytest.approx(1)
    assert sum(end[-n_robust:]) == pytest.approx(0.4 if "natural" in tasks else 1)


def test_one_radius_is_not_for_several_norms() -> None:
    with pytest.raises(InvalidConfigError, match=r"left out with several norms, but got 0\.1"):
        PRESETS["linf+l2"](epsilon=0.1)
